"""Whether what an environment gives has the form that its observation space says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import gymnasium as gym
import numpy as np

from rayprune.policies.spaces import Path, Space

_CHOICES: Final = (gym.spaces.Discrete, gym.spaces.MultiDiscrete, gym.spaces.MultiBinary)


class Misfit(NamedTuple):
    """A part of an observation that isn't what its space says."""

    path: Path
    """Where it is; empty for the whole."""
    space: Space
    value: Any


def misfit(space: Space, observation: Any, path: Path = ()) -> Misfit | None:
    """Return the first part of an observation that no encoder of its space can read, if any.

    Keys, shapes and the range of choices count. A Box's bounds don't, nor does the kind of number:
    environments are careless there, and it does no harm.

    >>> misfit(gym.spaces.Box(-1, 1, (3,)), np.zeros(3)) is None
    True
    >>> misfit(gym.spaces.Dict(a=gym.spaces.Discrete(3)), {"a": 3})
    Misfit(path=('a',), space=Discrete(3), value=3)
    """
    if isinstance(space, gym.spaces.Dict):
        whole = isinstance(observation, Mapping) and set(observation) == set(space.spaces)
        parts: Any = space.spaces.items()
    elif isinstance(space, gym.spaces.Tuple):
        whole = isinstance(observation, (tuple, list)) and len(observation) == len(space.spaces)
        parts = enumerate(space.spaces)
    else:
        return None if _fits(space, observation) else Misfit(path, space, observation)
    if not whole:
        return Misfit(path, space, observation)
    found = (misfit(part, observation[key], (*path, key)) for key, part in parts)
    return next((one for one in found if one is not None), None)


def _fits(space: Space, value: Any) -> bool:
    if not isinstance(space, (gym.spaces.Box, *_CHOICES)):
        return True
    try:
        values = np.asarray(value)
    except (ValueError, TypeError):  # lists of several lengths, objects of their own
        return False
    if values.dtype.kind not in "biuf" or values.shape != space.shape:
        return False
    if isinstance(space, gym.spaces.Box):
        return True
    least, number = _range(space)
    return bool(((values >= least) & (values < least + number)).all())


def _range(space: Any) -> tuple[Any, Any]:
    """Return the lowest value and the number of values of each choice."""
    if isinstance(space, gym.spaces.MultiBinary):
        return 0, 2
    return space.start, space.nvec if isinstance(space, gym.spaces.MultiDiscrete) else space.n
