"""Spaces as an exported file has them: ports of observations, and facts of their elements."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from rayprune.deploy.policy.element_facts import few
from rayprune.deploy.policy.interface import Array, Port
from rayprune.errors import InputError

Space: TypeAlias = gym.Space[Any]
Path: TypeAlias = tuple[Any, ...]


def leaves(space: Space, path: Path = ()) -> Iterator[tuple[Path, Space]]:
    """Yield the leaves of a space with their paths, in the order in which RLlib flattens them."""
    if isinstance(space, gym.spaces.Dict):
        for key in sorted(space.spaces):
            yield from leaves(space.spaces[key], (*path, key))
    elif isinstance(space, gym.spaces.Tuple):
        for index, inner in enumerate(space.spaces):
            yield from leaves(inner, (*path, index))
    else:
        yield path, space


def observation_ports(space: Space) -> tuple[Port, ...]:
    """Return a port for each leaf of an observation space.

    >>> [port.name for port in observation_ports(gym.spaces.Dict(b=gym.spaces.Discrete(2)))]
    ['obs.b']

    Raises:
        InputError: a leaf is none of Box, Discrete, MultiDiscrete, MultiBinary, or a key has a dot.
    """
    dotted = [key for path, _ in leaves(space) for key in path if "." in str(key)]
    if dotted:
        raise InputError(
            f"Observations with the key {dotted[0]!r} can't be exported: a file calls a nested "
            "part `obs.arm.angle`, so that keys have no dot. Wrap the environment so that it gives "
            "another key."
        )
    return tuple(_leaf_port(port_name(path), leaf) for path, leaf in leaves(space))


def port_name(path: Path) -> str:
    """Return what the port of an observation's leaf is called.

    >>> port_name(("camera", 0)), port_name(())
    ('obs.camera.0', 'obs')
    """
    return ".".join(["obs", *map(str, path)])


def nested(space: Space, values: Sequence[Any]) -> Any:
    """Return the values of a space's leaves, in their order, nested as the space nests them.

    >>> space = gym.spaces.Dict(b=gym.spaces.Discrete(2), a=gym.spaces.Discrete(3))
    >>> nested(space, [0, 1])
    {'a': 0, 'b': 1}
    """
    given = iter(values)

    def filled(inner: Space) -> Any:
        if isinstance(inner, gym.spaces.Dict):
            return {key: filled(inner.spaces[key]) for key in sorted(inner.spaces)}
        if isinstance(inner, gym.spaces.Tuple):
            return tuple(filled(part) for part in inner.spaces)
        return next(given)

    return filled(space)


def inward_bounds(box: gym.spaces.Box) -> tuple[Tensor, Tensor]:
    """Return bounds that float32 can tell and that don't lie outside a Box of more digits.

    >>> low, _ = inward_bounds(gym.spaces.Box(-0.1, 1.0, (2,), np.float64))
    >>> bool((low.double() >= -0.1).all())
    True
    """
    low, high = (bound.astype(np.float32).reshape(-1) for bound in (box.low, box.high))
    low = np.where(low < box.low.reshape(-1), np.nextafter(low, np.float32(np.inf)), low)
    high = np.where(high > box.high.reshape(-1), np.nextafter(high, -np.float32(np.inf)), high)
    return torch.from_numpy(low), torch.from_numpy(high)


def unknown_actions(space: Space) -> InputError:
    """Return what refuses an action space that no exported file can have."""
    return InputError(
        f"Actions of {space} can't be exported: Discrete, and one-dimensional MultiDiscrete and "
        "float Box can. Wrap the environment so that it takes those."
    )


def observation_facts(space: Space) -> dict[str, dict[str, Any]]:
    """Return the names and bounds of each observation's elements, by the input's name."""
    return {port_name(path): _told([(path, leaf)], "obs") for path, leaf in leaves(space)}


def action_facts(space: Space) -> dict[str, dict[str, Any]]:
    """Return the names and bounds of the action's elements, its parts one behind another."""
    return {"action": _told([*leaves(space)], "action")}


def _leaf_port(name: str, space: Space) -> Port:
    if isinstance(space, (gym.spaces.Discrete, gym.spaces.MultiDiscrete)):
        return Port(name, tuple(space.shape or ()), "int64")
    if isinstance(space, gym.spaces.Box):
        kind = np.dtype(space.dtype)
        if kind.kind == "f":
            return Port(name, space.shape)
        if kind.kind in "iub":
            return Port(name, space.shape, str(kind))
    if isinstance(space, gym.spaces.MultiBinary):
        return Port(name, space.shape, str(np.dtype(space.dtype)))
    raise InputError(
        f"Observations of {space} (`{name}`) can't be exported: Box, Discrete, MultiDiscrete and "
        "MultiBinary can, nested in Dict and Tuple. Wrap the environment so that it gives those."
    )


def _told(parts: Sequence[tuple[Path, Space]], name: str) -> dict[str, Any]:
    bounds = [_bounds(leaf) for _, leaf in parts]
    low, high = (np.concatenate([pair[side] for pair in bounds]) for side in (0, 1))
    names = [one for path, leaf in parts for one in _names(path, leaf, name)]
    return {"names": names, "low": few(low), "high": few(high)}


def _names(path: Path, leaf: Space, name: str) -> list[str]:
    inside = ".".join(map(str, path)) or name
    count = math.prod(leaf.shape or ())
    own = getattr(leaf, "names", None)
    if own is not None and len(own) == count:
        return list(map(str, own))
    return [f"{inside}[{i}]" if leaf.shape else inside for i in range(count)]


def _bounds(space: Space) -> tuple[Array, Array]:
    """Return the least and the largest value of each element, shape ``(elements,)``."""
    low: Any
    high: Any
    if isinstance(space, gym.spaces.Box):
        low, high = space.low, space.high
    elif isinstance(space, gym.spaces.Discrete):
        low = np.array(int(space.start))
        high = low + int(space.n) - 1
    elif isinstance(space, gym.spaces.MultiDiscrete):
        low = np.asarray(space.start, np.int64)
        high = low + np.asarray(space.nvec, np.int64) - 1
    else:
        count = math.prod(space.shape or ())
        low, high = np.zeros(count), np.ones(count)
    return low.astype(np.float64).reshape(-1), high.astype(np.float64).reshape(-1)
