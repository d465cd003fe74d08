"""The parts of a policy put together: what reads the observation, the network, what decides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from rayprune.deploy.policy.actions import Choose, Clip, Decide, Reshape, Unsquash
from rayprune.deploy.policy.interface import Interface, Noise, Port
from rayprune.deploy.policy.policy import DeployablePolicy, Normalise, Observe
from rayprune.errors import InputError, first_line, shown
from rayprune.policies.spaces import (
    Space,
    inward_bounds,
    leaves,
    observation_ports,
    port_name,
    unknown_actions,
)

Statistics: TypeAlias = tuple[Any, Any]
"""Mean and standard deviation of an observation's elements."""


def assembled(
    observe: Observe,
    network: nn.Module,
    decide: Decide,
    observation_space: Space,
    action_space: Space,
    sample: bool,
) -> DeployablePolicy:
    """Return a policy of its parts, on the network's device, tried out once on zeros.

    Raises:
        InputError: the parts don't fit; says what the network gives.
    """
    observations = observation_ports(observation_space)
    device = next((held.device for held in network.parameters()), torch.device("cpu"))
    observe, decide, network = observe.to(device), decide.to(device), network.eval()
    given = [torch.from_numpy(port.zeros(2)).to(device) for port in observations]
    try:
        with torch.no_grad():
            dist_inputs = network(*observe(*given))[0]
    except Exception as error:  # a user's own code runs here
        raise InputError(
            f"The module can't take a batch of {observation_space}: {first_line(error)}."
        ) from error
    _check_outputs(dist_inputs, action_space, sample)
    with torch.no_grad():
        action = decide(dist_inputs)
    noise, kind = _noise(dist_inputs, action_space) if sample else (None, None)
    interface = Interface(
        observations=observations,
        action=_port("action", action),
        dist_inputs=_port("dist_inputs", dist_inputs),
        noise=noise,
        noise_kind=kind,
    )
    return DeployablePolicy(observe, network, decide, interface)


def decision(space: Space, choose: nn.Module | None, *, squashed: bool, bounded: bool) -> Decide:
    """Return what makes an action of a network's outputs.

    Args:
        space: of the actions.
        choose: of continuous ones what is read off the outputs; None for choices.
        squashed: continuous actions go through tanh.
        bounded: they lie in [-1, 1] and are scaled to their bounds; else they are clipped.

    Raises:
        InputError: no exported file has such actions.
    """
    choices = gym.spaces.Discrete, gym.spaces.MultiDiscrete
    if isinstance(space, choices) and np.any(space.start):
        raise InputError(
            f"Actions of {space} don't begin at 0, and where a network's outputs begin it doesn't "
            "say. Wrap the environment in `gymnasium.wrappers.TransformAction`, so that they do."
        )
    if isinstance(space, gym.spaces.Discrete):
        return Decide(Choose([int(space.n)], several=False))
    if isinstance(space, gym.spaces.MultiDiscrete) and len(space.shape) == 1:
        return Decide(Choose([int(size) for size in space.nvec], several=True))
    if choose is None or not isinstance(space, gym.spaces.Box):
        raise unknown_actions(space)
    if np.dtype(space.dtype).kind != "f":
        raise unknown_actions(space)
    low, high = inward_bounds(space)
    if bounded and not (low.isfinite().all() and high.isfinite().all()):
        raise InputError(f"Actions of {space} can't be scaled to bounds that are infinite.")
    squashing = [nn.Tanh()] if squashed else []
    shape = [Reshape(space.shape)] if len(space.shape) != 1 else []
    return Decide(choose, *squashing, Unsquash(low, high) if bounded else Clip(low, high), *shape)


def normalising(
    space: Space, statistics: Mapping[str | None, Statistics], clip: float | None
) -> list[nn.Module]:
    """Return the stage that centres and scales observations, none without statistics.

    Raises:
        InputError: statistics of another shape, or of no part of the observation.
    """
    if not statistics:
        return []
    parts: list[tuple[Tensor, Tensor] | None] = []
    left = dict(statistics)
    for path, leaf in leaves(space):
        held = left.pop(".".join(map(str, path)) if path else None, None)
        parts.append(None if held is None else _statistics(held, port_name(path), leaf))
    if left:
        raise InputError(f"There are statistics of {sorted(map(str, left))}, but none in {space}.")
    return [Normalise(parts, clip)]


def _statistics(held: Statistics, name: str, leaf: Space) -> tuple[Tensor, Tensor]:
    try:
        mean, std = (np.asarray(part, np.float64) for part in held)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"The statistics of `{name}` must be a pair of arrays, (mean, standard deviation), but "
            f"are {shown(held)}."
        ) from error
    if mean.shape != leaf.shape or std.shape != leaf.shape:
        raise InputError(
            f"The statistics of `{name}` are of shape {list(mean.shape)}, but it is "
            f"{leaf}. Give those of this policy's observations, or none (`--normalise none`)."
        )
    if not (np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()):
        raise InputError(
            f"The statistics of `{name}` must be finite, and deviations above 0, but hold mean "
            f"{shown(mean.tolist())} and deviation {shown(std.tolist())}. Give 1 for what never "
            "changes."
        )
    return torch.from_numpy(mean), torch.from_numpy(std)


def _check_outputs(outputs: Any, space: Space, sample: bool) -> None:
    wanted = _outputs_of(space, sample)
    if not isinstance(outputs, Tensor) or tuple(outputs.shape) != (2, wanted):
        had = list(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise InputError(
            f"For actions of {space} the module must give a tensor of shape [2, {wanted}] for 2 "
            f"observations, but gives {had}. Give `policy_of` the part of it that acts."
        )


def _outputs_of(space: Space, sample: bool) -> int:
    if isinstance(space, gym.spaces.Discrete):
        return int(space.n)
    if isinstance(space, gym.spaces.MultiDiscrete):
        return int(space.nvec.sum())
    return int(np.prod(space.shape or ())) * (2 if sample else 1)


def _noise(outputs: Tensor, space: Space) -> tuple[Port, Noise]:
    if isinstance(space, gym.spaces.Box):
        return Port("noise", (outputs.shape[-1] // 2,)), "normal"
    return Port("noise", (outputs.shape[-1],)), "gumbel"


def _port(name: str, value: Tensor) -> Port:
    return Port(name, tuple(value.shape[1:]), str(value.dtype).removeprefix("torch."))
