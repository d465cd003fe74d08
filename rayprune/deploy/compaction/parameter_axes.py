"""Which axes of a parameter the axes of a tensor are, that was made of it by moves alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rayprune.deploy.compaction.abstract_values import AbstractValue


def sources(value: AbstractValue) -> Tensor:
    """Return which element of its parameter each element is, counted in the parameter's order."""
    if value.source is not None:
        return value.source
    shape = value.channels.shape
    return torch.arange(shape.numel()).reshape(shape)


def axes_of(value: AbstractValue, shape: Sequence[int]) -> tuple[int | None, ...] | None:
    """Return for each axis of a value which one of its parameter's it is; None for an added one.

    Args:
        value: made of a parameter.
        shape: the parameter's.

    Returns:
        None if it is not the whole parameter, its axes in any order.

    >>> whole = torch.arange(6).reshape(2, 3)
    >>> turned = AbstractValue(whole.T * 0, whole.T.double(), "w", source=whole.T)
    >>> axes_of(turned, (2, 3))
    (1, 0)
    """
    found, every = sources(value), torch.arange(torch.Size(shape).numel()).reshape(tuple(shape))
    long = [axis for axis, size in enumerate(shape) if size > 1]
    axes: list[int | None] = []
    for dim, size in enumerate(found.shape):
        steps = found.movedim(dim, 0).reshape(size, -1)[:2, 0].diff()
        strides = [axis for axis in long if size > 1 and every.stride(axis) == int(steps[0])]
        if size > 1 and not strides:
            return None
        axes.append(strides[0] if size > 1 else None)
    told = [axis for axis in axes if axis is not None]
    if sorted(told) != long:
        return None
    same = every.squeeze().permute([long.index(axis) for axis in told]).reshape(found.shape)
    if not torch.equal(same, found):
        return None
    # Which axis of length 1 is which doesn't matter.
    short = iter(axis for axis, size in enumerate(shape) if size <= 1)
    return tuple(next(short, None) if axis is None else axis for axis in axes)
