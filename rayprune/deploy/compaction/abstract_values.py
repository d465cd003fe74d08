"""What is known of a tensor in a forward without running it on data: its units, its constants."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rayprune.deploy.compaction.channels import FREE, PINNED

NAN = float("nan")
EVEN = 1e-14
"""torch's vectorised activations differ in the last bit from those at a tensor's end."""


@dataclass(frozen=True, slots=True)
class AbstractValue:
    """One tensor of a forward, element by element."""

    channels: Tensor
    """The channel (unit) that each element belongs to; int64, the tensor's shape."""
    known: Tensor
    """Each element's value where no input can change it, else NaN; float64, the same shape."""
    parameter: str = ""
    """The full name of the parameter that this is, if it is one."""
    dtype: torch.dtype = torch.float64
    """What operators take it as: whole numbers and truths as they are, all floats as double."""
    source: Tensor | None = None
    """Of a parameter whose elements were moved, which of them each is; see `parameter_axes`."""

    @property
    def runnable(self) -> Tensor:
        """`known` as operators take it; where it says nothing, of NaN or of any other value."""
        if self.dtype == torch.float64:
            return self.known
        return self.known.nan_to_num(posinf=0.0, neginf=0.0).to(self.dtype)


@dataclass(frozen=True, slots=True)
class Columns:
    """What a layer sees along its axis of input units."""

    channels: Tensor
    """Shape ``(in,)``."""
    constants: Tensor
    """The one value that all elements of a column have, or NaN; shape ``(in,)``."""
    patterns: Tensor
    """All that is known of each column, over all places; shape ``(places, in)``."""
    mixed: bool
    """Whether units are spread in another way than by column, so that none can be told apart."""


def unknown(shape: torch.Size, *, channels: Tensor | None = None) -> AbstractValue:
    """Return a tensor of which nothing is known but its units, pinned ones if none are given."""
    filled = torch.full(shape, PINNED) if channels is None else channels.expand(shape)
    return AbstractValue(filled.contiguous(), torch.full(shape, NAN, dtype=torch.float64))


def made(constant: Tensor) -> AbstractValue:
    """Return a tensor that the forward makes itself, from nothing."""
    return AbstractValue(torch.full(constant.shape, FREE), constant.detach().cpu().double())


def columns(value: AbstractValue, axis: int) -> Columns:
    """Read a tensor by columns along ``axis``.

    >>> value = unknown(torch.Size([5, 3]), channels=torch.tensor([7, 8, 9]))
    >>> columns(value, -1).channels.tolist()
    [7, 8, 9]
    >>> columns(value, 0).mixed
    True
    """
    channels, known = (
        x.movedim(axis, -1).unsqueeze(0).flatten(0, -2) for x in (value.channels, value.known)
    )
    first = channels[0]
    mixed = not bool((channels == first).all())
    even = ((known - known[0]).abs() <= EVEN * known[0].abs()).all(0)
    constants = torch.where(even, known[0], torch.nan)
    # What is made of constants alone is not sized by any unit, so that its columns must stay.
    channels = torch.full_like(first, PINNED) if mixed else first.clamp(min=PINNED)
    return Columns(channels, constants, known, mixed)


def amplitudes(patterns: Tensor) -> Tensor:
    """Return how strong each column's pattern is, where they are one pattern times a number.

    Args:
        patterns: shape ``(places, in)``.

    Returns:
        The numbers, signed, shape ``(in,)``; NaN for columns that depend on inputs, are zero, or
        have another pattern than the strongest one.

    >>> amplitudes(torch.tensor([[0.0, 0.0, 1.0], [2.0, -4.0, 0.0]])).tolist()
    [2.0, -4.0, nan]
    """
    places = patterns.abs().argmax(0, keepdim=True)
    peaks = patterns.gather(0, places)[0]
    strengths = peaks.abs().nan_to_num(nan=0.0)
    if not strengths.any():
        return torch.full_like(peaks, NAN)
    shapes = patterns / peaks
    same = ((shapes - shapes[:, strengths.argmax()][:, None]).abs() <= EVEN).all(0)
    return torch.where(same, peaks, torch.nan)


def along(units: Tensor, shape: torch.Size, axis: int) -> Tensor:
    """Lay what is told per unit out over ``shape``, along ``axis``.

    >>> along(torch.tensor([1, 2]), torch.Size([1, 2, 3]), 1).tolist()
    [[[1, 1, 1], [2, 2, 2]]]
    """
    layout = [1] * len(shape)
    layout[axis] = units.numel()
    return units.reshape(layout).expand(shape).contiguous()


def varies(channels: Tensor, dim: int) -> bool:
    """Whether units differ along ``dim``."""
    return not bool((channels == channels.narrow(dim, 0, 1)).all())
