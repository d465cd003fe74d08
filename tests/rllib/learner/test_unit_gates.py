"""Unit gates in a Learner: units go by themselves, live, and their gates go with them."""

from __future__ import annotations

import pytest
from ray.rllib.core import DEFAULT_MODULE_ID

from rayprune.pruning.penalties.gate_step import UnitGates
from rayprune.rllib import prune
from tests.rllib import configs

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(300)]


@pytest.mark.slow
def test_closed_units_are_pruned_and_compacted_and_training_goes_on() -> None:
    what = configs.pruning(
        granularity="neuron",
        sparsity=None,
        threshold={"absolute": 0.0},
        penalty={"kind": "gates", "strength": 1.0},
        schedule={"kind": "linear", "begin": 200, "end": 1000, "every": 200},
        compact_every=200,
    )
    algo = configs.build(prune(configs.ppo().training(lr=0.01), what))
    try:
        for _ in range(6):
            algo.train()
        learner = configs.learner_of(algo)
        report = learner.pruning_report()[DEFAULT_MODULE_ID]
        assert report["sparsity"] > 0.2
        assert not report["violations"]
        pruner = learner.pruners[DEFAULT_MODULE_ID]
        (member,) = pruner.members
        gates = member._parts[UnitGates].values
        assert gates
        for name, values in gates.items():
            assert values.shape[0] == pruner.parameters[name].shape[0], name
            assert float(values.max()) > 0
        # The first layers' units, of four weights, cost too little to be shut so soon.
        assert min(values.shape[0] for values in gates.values()) < 32
    finally:
        algo.stop()
