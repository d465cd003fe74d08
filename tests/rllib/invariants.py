"""Compares masks with weights directly, not by the code that the callback uses."""

from __future__ import annotations

from typing import Any

import torch
from ray.rllib.core import DEFAULT_MODULE_ID

from rayprune.rllib.models import ActorCritic
from tests.rllib import configs


def check_by_hand(algo: Any, *, env_runners: bool = True) -> None:
    """Assert that pruned weights of Learner, target networks and EnvRunners are zero.

    Args:
        algo: with a local Learner, after an iteration.
        env_runners: whether these hold the Learner's newest weights already, if there are any.
    """
    learner = configs.learner_of(algo)
    module = learner.module[DEFAULT_MODULE_ID].unwrapped()
    masks = learner.masks()[DEFAULT_MODULE_ID]
    weights = dict(module.named_parameters())
    assert any(not mask.all() for mask in masks.values())
    for name, mask in masks.items():
        assert torch.all(weights[name][~mask] == 0), name
    # Our actor-critics have target networks under APPO alone.
    if hasattr(module, "get_target_network_pairs") and (
        not isinstance(module, ActorCritic) or module.get_target_network_pairs()
    ):
        _check_targets(module, masks)
    if env_runners:
        _check_env_runners(algo, learner, masks)


def _check_env_runners(algo: Any, learner: Any, masks: dict[str, torch.Tensor]) -> None:
    synced = set(learner.module[DEFAULT_MODULE_ID].get_state(inference_only=True))

    def dense(runner: Any) -> list[str]:
        held = {n: p for n, p in runner.module.named_parameters() if n in synced}
        assert held
        return [n for n, m in masks.items() if n in held and torch.any(held[n][~m] != 0)]

    assert algo.env_runner_group.foreach_env_runner(dense, local_env_runner=True) == [[]] * (
        algo.config.num_env_runners + 1
    )


def _check_targets(module: Any, masks: dict[str, torch.Tensor]) -> None:
    names = {id(p): name for name, p in module.named_parameters()}
    compared = 0
    for source, target in module.get_target_network_pairs():
        for p, t in zip(source.parameters(), target.parameters(), strict=True):
            mask = masks.get(names[id(p)])
            if mask is not None:
                assert torch.all(t[~mask] == 0), names[id(p)]
                compared += 1
    assert compared >= 2
