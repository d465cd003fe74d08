"""Plasticity on real Learners: it is measured, and no bit of the training depends on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rayprune.pruning.measures.plasticity import WINDOW
from rayprune.rllib import prune
from rayprune.rllib.callback import RESULT_KEY
from rayprune.tracking.record import read_rows
from rayprune.tracking.tracker import flat_metrics
from tests.rllib import configs, experiments

pytestmark = pytest.mark.usefixtures("ray_session")


def trained(
    config: Any, iterations: int, plasticity: Any, *, lean: bool = True
) -> tuple[dict[str, Any], list[Any]]:
    """Return the policy's weights, and what each result told."""
    torch.manual_seed(0)
    algorithm = prune(config, configs.pruning(plasticity=plasticity), lean=lean).build_algo()
    try:
        results = [algorithm.train() for _ in range(iterations)]
        learner = configs.learner_of(algorithm)
        weights = {k: v.clone() for k, v in learner.module["default_policy"].state_dict().items()}
    finally:
        algorithm.stop()
    return weights, [result[RESULT_KEY]["default_policy"]["plasticity"] for result in results]


def test_ppo_learns_the_same_to_the_bit_with_it_on_and_off() -> None:
    on, told = trained(configs.ppo(), 4, {"every": 20})
    off, nothing = trained(configs.ppo(), 4, None)
    assert nothing == [None] * 4
    assert sum(figures is not None for figures in told) >= 1
    assert on.keys() == off.keys()
    assert all(torch.equal(on[name], off[name]) for name in on)


@pytest.mark.parametrize("name", ["ppo", "dqn", "sac"])
def test_hidden_layers_are_measured_and_outputs_only_by_their_gradients(name: str) -> None:
    _, told = trained(getattr(configs, name)(), 4, {"every": 100})
    figures = next(figures for figures in told if figures is not None)
    heads = {layer for layer in figures["gradient_snr"] if layer not in figures["srank"]}
    assert heads
    assert all(layer.split(".")[0] in ("pi", "vf", "af", "qf", "qf_twin") for layer in heads)
    assert figures["srank"].keys() == figures["dormant"].keys() < figures["gradient_snr"].keys()
    assert not any("target" in layer for layer in figures["gradient_snr"])
    assert all(0 <= share <= 1 for share in figures["dormant"].values())
    assert all(1 <= rank <= 32 for rank in figures["srank"].values())


def test_value_estimates_for_advantages_are_seen_by_no_loop() -> None:
    # A window goes on over several updates: each begins with such an estimate.
    lean, rllibs = (
        trained(configs.ppo(), 5, {"every": 16}, lean=is_lean) for is_lean in (True, False)
    )
    assert any(figures is not None for figures in lean[1])
    assert lean[1] == rllibs[1]


def test_no_hook_stays_after_a_window() -> None:
    algorithm = prune(configs.ppo(), configs.pruning(plasticity={"every": 1000})).build_algo()
    try:
        learner = configs.learner_of(algorithm)
        hooked = [p for p in learner.module["default_policy"].modules() if p._forward_hooks]
        assert hooked
        while learner._modules.updates < WINDOW:
            algorithm.train()
        assert not any(p._forward_hooks for p in learner.module["default_policy"].modules())
    finally:
        algorithm.stop()


def test_the_record_and_the_trackers_get_it_and_a_resumed_run_the_same(tmp_path: Path) -> None:
    changed = {
        "pruning": {**experiments.PPO["pruning"], "plasticity": {"every": 16}},
        # A window ends within three iterations; a checkpoint before that would drop it.
        "evaluation": {"every": 600, "episodes": 1},
    }
    what = experiments.experiment(experiments.PPO, **changed)
    half = experiments.experiment(experiments.PPO, **changed, stop={"env_steps": 600})
    experiments.train(what, tmp_path / "whole")
    experiments.train(half, tmp_path / "cut")
    experiments.train(what, tmp_path / "cut", resume=True)
    rows, cut = (read_rows(tmp_path / name / "results.jsonl") for name in ("whole", "cut"))
    held = [row["plasticity"] for row in rows if "plasticity" in row]
    assert held
    numbers, _ = flat_metrics(next(row for row in rows if "plasticity" in row))
    assert "plasticity/gradient_snr/pi.net.mlp.0" in numbers
    # The horizon, and with it the masks, differ until the run was prolonged: compare where
    # figures are due, not their values.
    assert [("plasticity" in row) for row in rows] == [("plasticity" in row) for row in cut]
