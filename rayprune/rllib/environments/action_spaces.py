"""Which action spaces can't be learned, and how an environment is wrapped so that they can."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from rayprune.policies.spaces import Space, leaves
from rayprune.rllib.connectors.encoding import short

_MOST_LISTED: Final = 8
_WHY: Final = (
    "RLlib draws from Discrete, and from MultiDiscrete and float Box of one axis, nested in Dict "
    "and Tuple"
)


def action_space_faults(space: Space, algorithm: str, *, squashes: bool = False) -> Iterator[str]:
    """Yield what an algorithm can't learn of an action space, in words that name the way out.

    Args:
        space: of the environment's actions.
        algorithm: as the YAML names it.
        squashes: whether it squashes continuous actions into bounds, and knows no others.

    >>> list(action_space_faults(gym.spaces.Discrete(3, start=-1), "PPO"))
    []
    """
    for path, leaf in leaves(space):
        name = f" (part `{'.'.join(map(str, path))}`)" if path else ""
        instead = _instead(leaf)
        if instead is not None:
            yield (
                f"`{algorithm}` can't learn actions of {short(leaf)}{name}: {_WHY}. Wrap the "
                f"environment: {instead}."
            )
        elif squashes and isinstance(leaf, gym.spaces.Box):
            yield from _squashing_faults(leaf, algorithm)


def _instead(leaf: Space) -> str | None:
    """Return the wrapper that makes a space one that can be learned; None where it is one."""
    if isinstance(leaf, gym.spaces.Discrete):
        return None
    if isinstance(leaf, gym.spaces.MultiBinary):
        return _reshaping(leaf.shape, f"MultiDiscrete([2] * {int(np.prod(leaf.shape))})")
    if isinstance(leaf, gym.spaces.MultiDiscrete):
        if len(leaf.shape) == 1:
            return None
        nvec, start = _listed(leaf.nvec, "nvec"), _listed(leaf.start, "start")
        return _reshaping(leaf.shape, f"MultiDiscrete({nvec}, start={start})")
    if isinstance(leaf, gym.spaces.Box):
        return _instead_of_box(leaf)
    return "`gymnasium.wrappers.TransformAction` can make such actions of those"


def _instead_of_box(box: gym.spaces.Box) -> str | None:
    dtype = np.dtype(box.dtype)
    low, high = _listed(box.low, "low"), _listed(box.high, "high")
    if dtype.kind == "f":
        kind = f"Box(np.array({low}), np.array({high}), dtype=np.{dtype})"
        return _reshaping(box.shape, kind) if len(box.shape) > 1 else None
    if not (box.bounded_below.all() and box.bounded_above.all()):
        return "`gymnasium.wrappers.TransformAction` can round actions of a float Box"
    counts = _listed(box.high.astype(int) - box.low.astype(int) + 1, "high - space.low + 1")
    return _reshaping(box.shape, f"MultiDiscrete({counts}, start={low})", f".astype(np.{dtype})")


def _listed(values: npt.NDArray[Any], name: str) -> str:
    if values.size > _MOST_LISTED:
        return f"np.ravel(space.{name})"
    return str(values.reshape(-1).tolist())


def _reshaping(shape: tuple[int, ...], kind: str, cast: str = "") -> str:
    action = f"np.reshape(a, {shape}){cast}"
    return f"`gymnasium.wrappers.TransformAction(env, lambda a: {action}, {kind})`"


def _squashing_faults(box: gym.spaces.Box, algorithm: str) -> Iterator[str]:
    if len(box.shape) != 1:
        yield (
            f"`{algorithm}` can't learn actions of {short(box)}: it takes a Box of one axis. Wrap "
            "the environment: `gymnasium.wrappers.TransformAction(env, lambda a: a[0], ...)` with "
            "a Box of shape (1,), or choose PPO."
        )
    elif not (box.bounded_below.all() and box.bounded_above.all()):
        yield (
            f"`{algorithm}` can't learn actions of {short(box)}: it squashes actions into bounds, "
            "and these have an infinite one. Wrap the environment: `gymnasium.wrappers."
            "TransformAction(env, lambda a: a, Box(...))` with finite bounds, or choose PPO."
        )
