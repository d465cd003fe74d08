"""Pruning at initialisation: the first minibatches are looked at, and no step is taken before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from torch import Tensor

from rayprune.rllib import prune
from tests.doubles.learners import Plain
from tests.rllib import configs, matrix
from tests.rllib.learner.test_final_masks import learner_with, spaces_only, update

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


def snipped(minibatches: int, **changes: Any) -> dict[str, Any]:
    schedule = {"kind": "at_init", "minibatches": minibatches}
    return {"schedule": schedule, "criterion": "snip", "evidence": {"objective": "loss"}, **changes}


def steps_until_pruned(learner: Any, module_id: str = DEFAULT_MODULE_ID) -> int:
    """Return how many minibatches pass before weights move; two are given at a time."""
    weights = learner.pruners[module_id].parameters
    first = {name: weight.detach().clone() for name, weight in weights.items()}
    for number in range(1, 9):
        update(learner, step=100 * number, seed=number, num_epochs=1)
        moved = learner.pruners[module_id].parameters
        if not all(torch.equal(moved[name], held) for name, held in first.items()):
            return 2 * number
    raise AssertionError("no step was taken")


def test_groups_with_minibatches_of_their_own_wait_for_those_of_all() -> None:
    groups = {"policy": snipped(2, sparsity=0.6), "value": snipped(4)}
    learner = learner_with(Plain, sparsity=0.8, groups=groups)
    assert steps_until_pruned(learner) == 4
    found = learner.pruning_report()[DEFAULT_MODULE_ID]["groups"]
    assert found == pytest.approx({"policy": 0.6, "value": 0.8}, abs=0.01)


def test_a_dense_twin_takes_its_first_step_at_once() -> None:
    learner = learner_with(Plain, **snipped(5, sparsity=0.0))
    assert steps_until_pruned(learner) == 2


def test_a_policy_that_is_not_trained_keeps_no_other_waiting() -> None:
    config = spaces_only(("a", "b")).multi_agent(policies_to_train=["a"])
    learner = learner_with(Plain, config, **snipped(4, sparsity=0.5))
    assert steps_until_pruned(learner, "a") == 4
    report = learner.pruning_report()["a"]
    assert report["sparsity"] == pytest.approx(0.5, abs=0.01)
    assert "b" not in learner.pruners or not learner.pruners["b"].held_masks


def test_a_restored_learner_does_not_wait_again_and_prunes_no_more() -> None:
    learner = learner_with(Plain, **snipped(4, sparsity=0.5))
    assert steps_until_pruned(learner) == 4
    masks = {name: mask.clone() for name, mask in learner.masks()[DEFAULT_MODULE_ID].items()}
    again = learner_with(Plain, **snipped(4, sparsity=0.5))
    again.set_state(learner.get_state())
    assert steps_until_pruned(again) == 2
    after = again.masks()[DEFAULT_MODULE_ID]
    assert all(torch.equal(mask, after[name]) for name, mask in masks.items())
