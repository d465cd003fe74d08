"""A module's target networks, where it has any."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ray.rllib.core.rl_module.apis import TargetNetworkAPI
from torch import Tensor, nn


def target_pairs(module: Any) -> list[tuple[nn.Module, nn.Module]]:
    """Return a module's pairs of source and target network; empty where none were made.

    DreamerV3's critic holds moving averages of its two nets itself, which count as such.

    Only some algorithms make them (DQN, SAC, APPO do, PPO doesn't), each in its Learner's `build`,
    and a module of theirs serves in the others too. RLlib has no way to ask: until they are made,
    a module looks in vain for what it is to return.
    """
    if not isinstance(module, TargetNetworkAPI):
        return _averages(getattr(module, "critic", None))
    try:
        pairs = list(module.get_target_network_pairs())
    except (AttributeError, KeyError):
        return []
    return [(source, target) for source, target in pairs if isinstance(target, nn.Module)]


def _averages(critic: Any) -> list[tuple[nn.Module, nn.Module]]:
    # By what it has: RLlib's DreamerV3 is dear to import.
    if not isinstance(critic, nn.Module) or not hasattr(critic, "update_ema"):
        return []
    held = dict(critic.named_children())
    return [(held[n], held[f"{n}_ema"]) for n in held if f"{n}_ema" in held]


def target_networks(module: Any) -> list[nn.Module]:
    """Return a module's target networks."""
    return [target for _, target in target_pairs(module)]


def target_prefixes(module: Any) -> tuple[str, ...]:
    """Return what the names of the target networks' parameters begin with."""
    targets = {id(target) for target in target_networks(module)}
    named = module.named_modules(remove_duplicate=False)
    return tuple(f"{name}." for name, part in named if id(part) in targets)


def target_parameters(module: Any) -> Iterator[tuple[nn.Parameter, nn.Parameter]]:
    """Yield each parameter of a source network with its copy in the target network."""
    for source, target in target_pairs(module):
        yield from zip(source.parameters(), target.parameters(), strict=True)


def target_tensors(module: Any) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield each tensor of a source network, buffers too, with its copy in the target network."""
    for source, target in target_pairs(module):
        yield from zip(source.state_dict().values(), target.state_dict().values(), strict=True)
