"""Unit numbers: which unit of one layer each number of a tensor carries, as int64 tensors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import torch
from torch import Tensor

NONE: Final = -1
"""The tag of a number that carries no unit of a layer."""
_HIGHEST: Final = 2**62 - 1


def same(units: Tensor, dims: Sequence[int]) -> Tensor:
    """Return the one unit along some dimensions, kept with length 1; `NONE` where there are more.

    Numbers without a unit don't count: what is added to a head leaves it one.
    """
    if not units.numel() or not dims:
        return units
    highest = units.amax(tuple(dims), keepdim=True)
    lowest = torch.where(units < 0, _HIGHEST, units).amin(tuple(dims), keepdim=True)
    return torch.where(lowest == highest, highest, NONE)


def spread(units: Tensor | None, shape: torch.Size) -> Tensor | None:
    """Return what numbers of this shape carry that were made of numbers with these units."""
    if units is None or not carries(units):
        return None
    if _broadcasts(units.shape, shape):
        return units.expand(shape)
    if units.dim() == len(shape) > 2 and units.shape[:2] == shape[:2]:
        # Pooled, padded or resized within each channel.
        channels = same(units, list(range(2, units.dim())))
        if carries(channels):
            return channels.expand(shape)
    return torch.arange(shape.numel()).view(shape)


def _broadcasts(shape: torch.Size, to: torch.Size) -> bool:
    return len(shape) <= len(to) and all(
        a in (1, b) for a, b in zip(reversed(shape), reversed(to), strict=False)
    )


def joined(found: Iterable[Tensor | None]) -> Tensor | None:
    """Let numbers that meet carry the units of each; two units of one layer make another."""
    together: Tensor | None = None
    for units in found:
        if together is None or units is None:
            together = units if together is None else together
            continue
        both = (together >= 0) & (units >= 0) & (together != units)
        mixed = (together * 1_000_003 + units) & _HIGHEST
        together = torch.where(both, mixed, torch.maximum(together, units))
    return together


def carries(units: Tensor) -> bool:
    """Return whether any number carries a unit."""
    return bool((units >= 0).any())


def or_none(units: Tensor | None, tensor: Tensor) -> Tensor:
    """Return units as they are, and `NONE` for each number of a tensor that carries none."""
    return torch.full(tensor.shape, NONE) if units is None else units
