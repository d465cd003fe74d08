"""Lean training computes what RLlib's own loops do, whatever rayprune does meanwhile."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from rayprune.rllib import models, normalise, prune
from rayprune.rllib.actors.learners import foreach_learner
from tests.rllib import configs

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(300)]

LATE = {"kind": "cubic", "begin": 0.01, "end": 0.03, "every": 30}
WAYS: dict[str, dict[str, Any]] = {
    "dense": {"sparsity": 0.0},
    "weights": {},
    "neurons": {"granularity": "neuron"},
    "growing back": {"schedule": {"kind": "rigl", "begin": 0, "end": 2000, "every": 50}},
    "by gradients": {"criterion": "taylor", "evidence": {"objective": "loss"}},
    "by activations": {"criterion": "wanda"},
    "taught": {"distillation": {"weight": 2.0}},
    "shrinking": {"granularity": "neuron", "compact_every": 1},
    "penalised": {"penalty": {"kind": "l1", "strength": 0.001}},
}
ALGORITHMS: dict[str, Any] = {
    "ppo": configs.ppo,
    "dqn": configs.dqn,
    "sac": configs.sac,
    "tqc": configs.tqc,
}


def trained(config: Any, pruning: Any, *, lean: bool, iterations: int = 3) -> dict[str, Any]:
    """Train, and return all that a Learner has learnt."""
    algo = configs.build(prune(config, pruning, lean=lean))
    if algo.local_replay_buffer is not None:
        algo.local_replay_buffer.rng = np.random.default_rng(0)  # RLlib seeds it by the clock
    try:
        for _ in range(iterations):
            algo.train()
        of_learners = [
            {f"{name} of {rank}": held for name, held in learnt.items()}
            for rank, learnt in enumerate(foreach_learner(algo, learnt_by))
        ]
        acting = algo.env_runner_group.foreach_env_runner(acting_of)
        return {
            **{name: held for learnt in of_learners for name, held in learnt.items()},
            **{f"acting {number}": held for number, held in enumerate(acting)},
        }
    finally:
        algo.stop()


def learnt_by(learner: Any) -> dict[str, Any]:
    module = learner.module[DEFAULT_MODULE_ID]
    moments = [
        (name, key, value)
        for name, optimizer in learner._named_optimizers.items()
        for held in optimizer.state.values()
        for key, value in held.items()
    ]
    return {
        "weights": {k: v.clone() for k, v in module.state_dict().items()},
        "masks": learner.masks()[DEFAULT_MODULE_ID],
        "moments": {f"{n}.{k}.{i}": v.clone() for i, (n, k, v) in enumerate(moments)},
    }


def acting_of(env_runner: Any) -> dict[str, Any]:
    return {k: v.clone() for k, v in env_runner.module.state_dict().items()}


def check_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    for part, held in one.items():
        assert held.keys() == other[part].keys(), part
        different = [name for name in held if not torch.equal(held[name], other[part][name])]
        assert not different, (part, different)


# Of each feature one in every run; the Learner's and the buffers' own tests have more.
IN_EVERY_RUN = {
    ("ppo", "shrinking"),
    ("ppo", "by gradients"),
    ("dqn", "taught"),
    ("dqn", "growing back"),
    ("sac", "weights"),
}


@pytest.mark.parametrize(
    ("algorithm", "way"),
    [
        pytest.param(a, way, marks=() if (a, way) in IN_EVERY_RUN else pytest.mark.slow)
        for a in ALGORITHMS
        for way in WAYS
    ],
)
def test_the_same_weights_moments_and_masks_come_out(algorithm: str, way: str) -> None:
    pruning = configs.pruning(**{"schedule": LATE, **WAYS[way]})
    lean, own = (trained(ALGORITHMS[algorithm](), pruning, lean=on) for on in (True, False))
    assert all(torch.isfinite(weight).all() for weight in lean["weights of 0"].values())
    check_same(lean, own)


@pytest.mark.slow  # of two Learners every run has an update, see test_exact_zeros
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_so_it_does_with_two_learners(algorithm: str) -> None:
    pruning = configs.pruning(schedule={"kind": "rigl", "begin": 0, "end": 2000, "every": 50})
    config = ALGORITHMS[algorithm]().learners(num_learners=2)
    lean, own = (trained(config, pruning, lean=on, iterations=2) for on in (True, False))
    check_same(lean, own)
    check_same({"weights": lean["weights of 0"]}, {"weights": lean["weights of 1"]})


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_so_it_does_with_a_remote_env_runner(algorithm: str) -> None:
    config = ALGORITHMS[algorithm]().env_runners(num_env_runners=1)
    lean, own = (
        trained(config, configs.pruning(schedule=LATE), lean=on, iterations=2)
        for on in (True, False)
    )
    check_same(lean, own)


@pytest.mark.parametrize(
    "algorithm", ["dqn", *(pytest.param(a, marks=pytest.mark.slow) for a in ("ppo", "sac", "tqc"))]
)
def test_so_it_does_with_normalisation(algorithm: str) -> None:
    config = normalise(ALGORITHMS[algorithm](), rewards=True)
    lean, own = (trained(config, configs.pruning(schedule=LATE), lean=on) for on in (True, False))
    check_same(lean, own)


@pytest.mark.slow  # the same parts as of RLlib's nets, which are in every run
@pytest.mark.parametrize(
    ("algorithm", "module_class", "settings"),
    [
        ("ppo", models.PrunableSimBa, {"policy_width": 8, "value_width": 8}),
        ("dqn", models.PrunableSimBaDQN, {"width": 8}),
        ("sac", models.PrunableSimBaSAC, {"policy_width": 8, "value_width": 8}),
    ],
)
def test_so_it_does_with_simba(algorithm: str, module_class: type, settings: Any) -> None:
    spec = RLModuleSpec(module_class=module_class, model_config=settings)
    config = ALGORITHMS[algorithm]().rl_module(rl_module_spec=spec, model_config={})
    lean, own = (trained(config, configs.pruning(schedule=LATE), lean=on) for on in (True, False))
    check_same(lean, own)
