"""Tensors stay rectangles: along each axis some positions stay, and all that they span."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from rayprune.deploy.compaction.abstract_values import AbstractValue, varies
from rayprune.deploy.compaction.channels import PINNED, Channels

IN_A_BLOCK = "the forward lays them out in a block with units that live"


@dataclass(frozen=True, slots=True)
class Rectangle:
    """The channels of a tensor, each axis along which they don't vary cut to one position."""

    channels: Tensor

    def missing(self, sets: Tensor, kept: Tensor) -> Tensor:
        """Return the channels that must stay for what is kept to be a rectangle.

        Args:
            sets: of the channels, of their shape.
            kept: sets that stay.

        >>> units = torch.tensor([[1, 2], [3, 4]])
        >>> kept = torch.tensor([True, True, False, False, True])
        >>> Rectangle(units).missing(units, kept).tolist()
        [2, 3]
        """
        mask = kept[sets]
        if not mask.any():  # no tensor is empty
            return self.channels.flatten()[:1]
        hull = torch.ones_like(mask)
        for dim in range(mask.dim()):
            others = [other for other in range(mask.dim()) if other != dim]
            hull &= mask.amax(others, keepdim=True) if others else mask
        return self.channels[hull & ~mask]


def rectangles(values: Iterable[AbstractValue], extra: Iterable[Tensor]) -> list[Rectangle]:
    """Return what must stay rectangular, each once.

    Args:
        values: of a forward.
        extra: channels that must be rectangles although no tensor shows it.
    """
    found: dict[tuple[tuple[int, ...], bytes], Rectangle] = {}
    for channels in (*(value.channels for value in values), *extra):
        core = _core(channels)
        if core is not None:
            key = (tuple(core.shape), core.contiguous().numpy().tobytes())
            found.setdefault(key, Rectangle(core))
    return list(found.values())


def completed(channels: Channels, blocks: Iterable[Rectangle], kept: Tensor) -> Iterator[Tensor]:
    """Yield channels that must stay beside what is kept."""
    for block in blocks:
        missing = block.missing(channels.sets(block.channels), kept)
        if missing.numel():
            yield missing


def _core(channels: Tensor) -> Tensor | None:
    """Return channels without the axes along which they are the same; None where nothing can go."""
    if not channels.numel() or not bool((channels > PINNED).any()):
        return None
    for dim in range(channels.dim()):
        if channels.shape[dim] > 1 and not varies(channels, dim):
            channels = channels.narrow(dim, 0, 1)
    return channels.squeeze() if channels.numel() > 1 else channels.reshape(1)
