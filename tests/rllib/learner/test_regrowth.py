"""Dynamic sparse training on live algorithms: exact zeros, constant counts, the same masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID

from rayprune.rllib import prune
from rayprune.rllib.learner.optimizers import moments
from rayprune.rllib.learner.sparse_moments_and_targets import masked_targets
from tests.rllib import configs, experiments
from tests.rllib.invariants import check_by_hand
from tests.rllib.training.test_resume import CrashAt, CrashError, _rows, check_same_run

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(300)]

RIGL = {"kind": "rigl", "begin": 0, "end": 2000, "every": 50, "drop_fraction": 0.5}
SET = {**RIGL, "kind": "set"}
GROW = {"kind": "grow", "begin": 0, "end": 500, "every": 50, "start": 0.95}


@pytest.mark.parametrize(
    ("base", "kind"),
    [(configs.ppo, "set"), (configs.dqn, "rigl"), (configs.sac, "rigl")],
    ids=["ppo_set", "dqn_rigl", "sac_rigl"],
)
def test_weights_are_dropped_and_regrown_while_training(base: Any, kind: str) -> None:
    algo = configs.build(prune(base(), configs.pruning(schedule={**RIGL, "kind": kind})))
    try:
        check_by_hand(algo)  # before the first update, EnvRunners included
        counts = _active(algo)
        first = configs.learner_of(algo).masks()[DEFAULT_MODULE_ID]
        for _ in range(4):
            before = configs.learner_of(algo).masks()[DEFAULT_MODULE_ID]
            result = algo.train()["rayprune"][DEFAULT_MODULE_ID]
            check_by_hand(algo)
            assert _active(algo) == counts
            # Two changes for each weight that is exchanged.
            moved = _moved(before, configs.learner_of(algo).masks()[DEFAULT_MODULE_ID])
            assert result["churn"] + 1e-9 >= 2 * moved > 0 or algo.iteration == 1
        assert _moved(first, configs.learner_of(algo).masks()[DEFAULT_MODULE_ID]) > 0
        assert 0.2 < result["itop"]["all"] < 0.9
        assert result["sparsity"] == pytest.approx(0.8, abs=0.01)
    finally:
        algo.stop()


def test_regrown_weights_start_at_zero_with_zero_moments_and_zero_targets() -> None:
    algo = configs.build(prune(configs.dqn(), configs.pruning(schedule=RIGL)))
    learner, seen = configs.learner_of(algo), 0
    change_masks = learner._modules.spread

    def watched(module_id: str, sparsity: float, change: Any) -> None:
        nonlocal seen
        change_masks(module_id, sparsity, change)
        pruner = learner.pruners[module_id]
        optimizers = [opt for _, opt in learner.get_optimizers_for_module(module_id)]
        targets = dict(masked_targets(pruner))
        for name, fresh in change.regrown.items():
            seen += int(fresh.sum())
            held = [pruner.parameters[name].data, *moments(optimizers, pruner.parameters[name])]
            assert len(held) == 3
            assert all(not bool(tensor[fresh].any()) for tensor in [*held, targets[name]])

    learner._modules.spread = watched
    try:
        for _ in range(3):
            algo.train()
        assert seen > 0
    finally:
        algo.stop()


def test_weights_of_a_plain_checkpoint_are_pruned_by_their_size(tmp_path: Path) -> None:
    plain = configs.build(configs.ppo())
    plain.train()
    plain.save_to_path(str(tmp_path / "plain"))
    plain.stop()
    algo = configs.build(prune(configs.ppo(), configs.pruning(schedule={"kind": "static"})))
    try:
        algo.restore_from_path(str(tmp_path / "plain"))
        learner = configs.learner_of(algo)
        assert learner.masks()[DEFAULT_MODULE_ID] == {}
        pruner = learner.pruners[DEFAULT_MODULE_ID]
        state = {name: weight.detach().clone() for name, weight in pruner.parameters.items()}
        algo.train()
        check_by_hand(algo)
        masks = learner.masks()[DEFAULT_MODULE_ID]
        for name, mask in masks.items():
            # What stays is larger than what of the plain checkpoint went.
            held = state[name].abs()
            assert float(held[~mask].max()) < float(held[mask].min()) + 0.05, name
    finally:
        algo.stop()


def test_growth_lowers_the_sparsity_on_learners_and_env_runners() -> None:
    algo = configs.build(prune(configs.ppo(), configs.pruning(sparsity=0.6, schedule=GROW)))
    try:
        seen = [algo.train()["rayprune"][DEFAULT_MODULE_ID]["sparsity"] for _ in range(3)]
        check_by_hand(algo)
        assert seen == pytest.approx([0.81, 0.67, 0.6], abs=0.01)
    finally:
        algo.stop()


@pytest.mark.parametrize(
    ("base", "crash_at"),
    [
        (experiments.PPO, 610),
        pytest.param(experiments.DQN, 310, marks=pytest.mark.slow),  # two thousand small updates
    ],
    ids=["ppo", "dqn"],
)
def test_a_resumed_run_equals_the_uninterrupted_one(
    tmp_path: Path, base: dict[str, Any], crash_at: int
) -> None:
    schedule = {"kind": "rigl", "end": 1.0, "every": 150, "minibatches": 40}
    what = experiments.experiment(base, pruning={"sparsity": 0.8, "schedule": schedule})
    experiments.train(what, tmp_path / "whole")
    with pytest.raises(CrashError):
        experiments.train(what, tmp_path / "cut", reporter=CrashAt(crash_at))
    experiments.train(what, tmp_path / "cut", resume=True)
    check_same_run(tmp_path / "whole", tmp_path / "cut")
    row = _rows(tmp_path / "whole")[-1]
    assert row["itop"]["all"] > 0.25
    assert np.isclose(row["sparsity"], 0.8, atol=0.01)


def _active(algo: Any) -> dict[str, int]:
    masks = configs.learner_of(algo).masks()[DEFAULT_MODULE_ID]
    return {name: int(mask.sum()) for name, mask in masks.items()}


def _moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> float:
    """The fraction of weights that are off and were on."""
    gone = sum(int((before[name] & ~mask).sum()) for name, mask in after.items())
    return gone / sum(mask.numel() for mask in after.values())
