"""A module's target networks, where it has any."""

from __future__ import annotations

from typing import Any

from ray.rllib.core.rl_module.apis import TargetNetworkAPI
from torch import nn


def target_pairs(module: Any) -> list[tuple[nn.Module, nn.Module]]:
    """Return a module's pairs of source and target network; empty where none were made.

    Only some algorithms make them (DQN, SAC, APPO do, PPO doesn't), each in its Learner's `build`,
    and a module of theirs serves in the others too. RLlib has no way to ask: until they are made,
    a module looks in vain for what it is to return.
    """
    if not isinstance(module, TargetNetworkAPI):
        return []
    try:
        pairs = list(module.get_target_network_pairs())
    except (AttributeError, KeyError):
        return []
    return [(source, target) for source, target in pairs if isinstance(target, nn.Module)]
