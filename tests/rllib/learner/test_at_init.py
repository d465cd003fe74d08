"""Pruning at initialisation: the first minibatches are looked at, and no step is taken before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from torch import Tensor

from rayprune.rllib import prune
from tests.rllib import configs, matrix

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(300)]

MINIBATCHES = 3


def at_init(**changes: Any) -> Any:
    schedule = {"kind": "at_init", "minibatches": MINIBATCHES}
    snip = {"criterion": "snip", "evidence": {"objective": "loss"}}
    return configs.pruning(**{"schedule": schedule, "sparsity": 0.75, **snip, **changes})


def slowly_snipped(weight: Tensor, gradients: list[Tensor], sparsity: float) -> Tensor:
    """Keep the weights of the largest ``|w * mean gradient|`` of one layer, by sorting a list."""
    mean = [sum(g.flatten()[i].item() for g in gradients) for i in range(weight.numel())]
    scores = [abs(w * g) for w, g in zip(weight.flatten().tolist(), mean, strict=True)]
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    mask = torch.zeros(weight.numel(), dtype=torch.bool)
    mask[order[: weight.numel() - round(sparsity * weight.numel())]] = True
    return mask.view(weight.shape)


def test_masks_are_snips_on_the_first_minibatches_at_the_initial_weights() -> None:
    algo = configs.build(prune(configs.ppo(), at_init()))
    try:
        learner = configs.learner_of(algo)
        modules, pruner = learner._modules, learner.pruners[DEFAULT_MODULE_ID]
        initial = {name: w.detach().clone() for name, w in pruner.parameters.items()}
        seen: dict[str, list[Tensor]] = {name: [] for name in initial}
        masked = modules.mask_gradients

        def watched(gradients: Any) -> None:
            if pruner.sparsity() == 0.0:
                for name, weight in pruner.parameters.items():
                    assert torch.equal(weight, initial[name])  # no step has been taken
                    seen[name].append(gradients[learner.get_param_ref(weight)].clone())
            masked(gradients)

        modules.mask_gradients = watched
        algo.train()
        assert {len(gradients) for gradients in seen.values()} == {MINIBATCHES}
        masks = learner.masks()[DEFAULT_MODULE_ID]
        for name, mask in masks.items():
            assert torch.equal(mask, slowly_snipped(initial[name], seen[name], 0.75)), name
        algo.train()
        # For good; and what is left is trained.
        after = learner.masks()[DEFAULT_MODULE_ID]
        assert all(torch.equal(mask, after[name]) for name, mask in masks.items())
        report = learner.pruning_report()[DEFAULT_MODULE_ID]
        assert report["finished"]
        assert not report["violations"]
        assert any(not torch.equal(w, initial[n] * masks[n]) for n, w in pruner.parameters.items())
    finally:
        algo.stop()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["DQN", "SAC", "BC", "CQL"])
def test_every_kind_of_algorithm_is_pruned_at_its_first_updates(name: str, tmp_path: Path) -> None:
    data = {}
    if name in matrix.OFFLINE:
        env = {"discrete": "CartPole-v1", "continuous": "Pendulum-v1"}[matrix.OFFLINE[name]]
        data[matrix.OFFLINE[name]] = matrix.record(env, tmp_path)
    algo = configs.build(prune(matrix.config_of(name, "mlp", data), at_init()))
    try:
        for _ in range(2):
            algo.train()
        report = configs.learner_of(algo).pruning_report()[DEFAULT_MODULE_ID]
        assert report["sparsity"] == pytest.approx(0.75, abs=0.01)
        assert report["finished"]
        assert not report["violations"]
    finally:
        algo.stop()
