"""How an observation of any space becomes what a network reads: one image, or one vector.

A lone Box stays what it is, as float32: bytes between 0 and 255 are scaled to between 0 and 1,
images get their channels last (grey ones a channel), stacked images are joined along their
channels, and what is neither a vector nor an image is laid flat. All else is one vector, part after
part in the order in which RLlib flattens a space, and each choice (`Discrete`, `MultiDiscrete`) is
one-hot.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from ray.rllib.utils.spaces.space_utils import unbatch

from rayprune.errors import ConfigError
from rayprune.policies.spaces import Path, Space, leaves

Array: TypeAlias = npt.NDArray[Any]

_BYTE: Final = 255.0
_LEAST_SIDE: Final = 10
"""A matrix of bytes is a grey image from here on; below it is a stack of vectors."""
_IMAGE_AXES: Final = 3
"""Height, width, channels."""
_MOST_CHANNELS: Final = 4
"""Of an image that isn't square: red, green, blue and alpha, or as many frames of grey."""


@dataclass(frozen=True, slots=True)
class SpaceLeaf:
    """A leaf of an observation space, and how it is read."""

    path: Path
    space: Space
    starts: tuple[int, ...] = ()
    """Of each choice its lowest value; empty where the leaf holds no choices."""
    sizes: tuple[int, ...] = ()
    """Of each choice the number of its values."""
    scale: float | None = None
    """What its numbers are divided by, None to leave them."""

    @property
    def size(self) -> int:
        """How many numbers the network reads of it."""
        return sum(self.sizes) if self.sizes else int(np.prod(self.space.shape or ()))

    def take(self, observation: Any) -> Any:
        """Return this leaf of an observation."""
        for key in self.path:
            observation = observation[key]
        return observation


@dataclass(frozen=True, slots=True)
class Layout:
    """How a lone Box is arranged: its axes in a new order, then a new shape."""

    axes: tuple[int, ...]
    shape: tuple[int, ...]


class Encoding:
    """The way from an observation to what a network reads.

    Args:
        space: the environment's.

    Raises:
        ConfigError: a part of it is of a kind that no network reads.

    >>> Encoding(gym.spaces.MultiDiscrete([2, 3], start=[1, -1]))(np.array([1, 1]))
    array([1., 0., 0., 0., 1.], dtype=float32)
    >>> Encoding(gym.spaces.Box(0, 255, (3, 10, 10), np.uint8)).space.shape
    (10, 10, 3)
    """

    def __init__(self, space: Space) -> None:
        faults = list(space_faults(space))
        if faults:
            raise ConfigError(faults)
        self.parts = [_part(path, leaf) for path, leaf in leaves(space)]
        self.layout = _layout_of(space) if isinstance(space, gym.spaces.Box) else None
        """Of a lone Box; None where the parts are joined to one vector."""
        shape = (sum(part.size for part in self.parts),) if self.layout is None else None
        self.space = _encoded(space, shape or self.layout.shape)  # type: ignore[union-attr]
        self._numbers = [_numbers(part) for part in self.parts]

    def __call__(self, observation: Any) -> Array:
        """Encode one observation, float32, of the shape of ``space``."""
        if self.layout is not None:
            (part,) = self.parts
            values = np.asarray(observation, np.float32)
            values = values if part.scale is None else values / np.float32(part.scale)
            return values.transpose(self.layout.axes).reshape(self.layout.shape)
        encoded = np.empty(self.space.shape or (), np.float32)
        begin = 0
        for part, numbers in zip(self.parts, self._numbers, strict=True):
            values, end = np.asarray(part.take(observation)).reshape(-1), begin + part.size
            if numbers is not None:
                encoded[begin:end] = numbers == np.repeat(values, part.sizes)
            elif part.scale is not None:
                encoded[begin:end] = values.astype(np.float32) / np.float32(part.scale)
            else:
                encoded[begin:end] = values
            begin = end
        return encoded

    def encode_all(self, observations: Any) -> Array:
        """Encode one observation of each environment at once.

        Args:
            observations: as a vector environment gives them.

        Returns:
            Shape ``(envs, *space.shape)``, float32.
        """
        if self.layout is None:
            return np.stack([self(observation) for observation in unbatch(observations)])
        (part,) = self.parts
        values = np.asarray(observations, np.float32)
        values = values if part.scale is None else values / np.float32(part.scale)
        axes = (0, *(axis + 1 for axis in self.layout.axes))
        return values.transpose(axes).reshape(len(values), *self.layout.shape)


def is_nested(space: Space | None) -> bool:
    """Whether a space holds others."""
    return isinstance(space, (gym.spaces.Dict, gym.spaces.Tuple))


def reads_as_it_is(space: Space) -> bool:
    """Whether a network reads observations of a space without our help.

    >>> reads_as_it_is(gym.spaces.Box(-1, 1, (3,))), reads_as_it_is(gym.spaces.Discrete(3))
    (True, False)
    """
    if not isinstance(space, gym.spaces.Box) or np.dtype(space.dtype).kind != "f":
        return False
    layout = _layout_of(space)
    return layout is not None and layout.shape == space.shape and _in_order(layout.axes)


def space_faults(space: Space) -> Iterator[str]:
    """Yield what no network can read of an observation space."""
    known = (
        gym.spaces.Box,
        gym.spaces.Discrete,
        gym.spaces.MultiDiscrete,
        gym.spaces.MultiBinary,
    )
    for path, leaf in leaves(space):
        if not isinstance(leaf, known):
            name = ".".join(["obs", *map(str, path)])
            yield (
                f"`env` gives observations of {short(leaf)} (`{name}`), which have no fixed size "
                "that a network could read: Box, Discrete, MultiDiscrete and MultiBinary have, "
                "nested in Dict and Tuple. Wrap the environment in "
                "`gymnasium.wrappers.TransformObservation`, which gives one of those."
            )
    if isinstance(space, gym.spaces.Box) and _layout_of(space) is None:
        yield (
            f"`env` gives observations of shape {list(space.shape)}, which are no vector, matrix, "
            "image or stack of images. Wrap the environment in "
            "`gymnasium.wrappers.FlattenObservation` or `ReshapeObservation`."
        )


def is_choice(space: Space | None) -> bool:
    """Whether a space's numbers are names of choices, which no statistic is of use for."""
    return isinstance(
        space, (gym.spaces.Discrete, gym.spaces.MultiDiscrete, gym.spaces.MultiBinary)
    )


def has_readings(space: Space) -> bool:
    """Whether running statistics are of use for some number of an observation: no image, no choice.

    >>> has_readings(gym.spaces.Box(-1, 1, (4,))), has_readings(gym.spaces.Discrete(16))
    (True, False)
    >>> has_readings(gym.spaces.Box(0, 255, (84, 84), np.uint8))
    False
    """
    return not is_image(space) and any(not is_choice(leaf) for _, leaf in leaves(space))


def is_image(space: Space) -> bool:
    """Whether a network reads observations of a space as images, by convolutions.

    >>> [is_image(gym.spaces.Box(0, 1, shape)) for shape in ((10, 10, 4), (10, 10), (5,))]
    [True, False, False]
    """
    layout = _layout_of(space) if isinstance(space, gym.spaces.Box) else None
    return layout is not None and len(layout.shape) == _IMAGE_AXES


def measured(space: Space) -> npt.NDArray[np.bool_]:
    """Return which numbers of an encoded observation are measurements, and not choices.

    >>> measured(gym.spaces.Dict(a=gym.spaces.Discrete(2), b=gym.spaces.Box(0, 1, (1,)))).tolist()
    [False, False, True]
    """
    encoding = Encoding(space)
    flags = [np.full(part.size, not is_choice(part.space)) for part in encoding.parts]
    return np.concatenate(flags).reshape(encoding.space.shape or ())


def _part(path: Path, space: Space) -> SpaceLeaf:
    if isinstance(space, gym.spaces.Discrete):
        return SpaceLeaf(path, space, (int(space.start),), (int(space.n),))
    if isinstance(space, gym.spaces.MultiDiscrete):
        starts, sizes = (np.asarray(x).reshape(-1) for x in (space.start, space.nvec))
        return SpaceLeaf(path, space, tuple(map(int, starts)), tuple(map(int, sizes)))
    return SpaceLeaf(path, space, scale=_BYTE if _is_bytes(space) else None)


def _is_bytes(space: Space) -> bool:
    return (
        isinstance(space, gym.spaces.Box)
        and space.dtype == np.uint8
        and bool((space.low == 0).all() and (space.high == _BYTE).all())
    )


def _numbers(part: SpaceLeaf) -> Array | None:
    """Return the values that stand for each place of one-hot choices."""
    if not part.sizes:
        return None
    pairs = zip(part.starts, part.sizes, strict=True)
    return np.concatenate([start + np.arange(size) for start, size in pairs])


def _encoded(space: Space, shape: tuple[int, ...]) -> gym.spaces.Box:
    if _is_bytes(space):
        return gym.spaces.Box(0.0, 1.0, shape, np.float32)
    return gym.spaces.Box(-np.inf, np.inf, shape, np.float32)


def _layout_of(space: gym.spaces.Box) -> Layout | None:
    """Return how a Box is arranged.

    >>> _layout_of(gym.spaces.Box(0, 255, (84, 84), np.uint8))
    Layout(axes=(0, 1), shape=(84, 84, 1))
    """
    if len(space.shape) == 2 and min(space.shape) >= _LEAST_SIDE and _is_bytes(space):
        return Layout((0, 1), (*space.shape, 1))
    return _layout(space.shape)


def _layout(shape: Sequence[int]) -> Layout | None:
    """Return how a Box of a shape is arranged; None where it is nothing that a network reads.

    >>> _layout((4, 84, 84)), _layout((42, 42, 3)).axes
    (Layout(axes=(1, 2, 0), shape=(84, 84, 4)), (0, 1, 2))
    >>> _layout((4, 84, 84, 3)).shape, _layout((3, 2)).shape
    ((84, 84, 12), (6,))
    """
    if len(shape) == 3:
        axes = (1, 2, 0) if _channels_first(shape) else (0, 1, 2)
        return Layout(axes, tuple(shape[axis] for axis in axes))
    if len(shape) == 4:
        inner = _layout(shape[1:])
        assert inner is not None
        height, width, channels = (axis + 1 for axis in inner.axes)
        # The frames of a stack become channels: its oldest frame's come first.
        return Layout((height, width, 0, channels), (*inner.shape[:2], shape[0] * inner.shape[2]))
    if len(shape) > 4:
        return None
    return Layout(tuple(range(len(shape))), (int(np.prod(shape)),))


def _channels_first(shape: Sequence[int]) -> bool:
    first, middle, last = shape
    if first >= middle or first >= last:
        return False
    return middle == last or (first <= _MOST_CHANNELS < last)


def _in_order(axes: Sequence[int]) -> bool:
    return list(axes) == sorted(axes)


def short(space: Space) -> str:
    """Return how a space prints, on one line and cut where it is long."""
    text = " ".join(str(space).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
