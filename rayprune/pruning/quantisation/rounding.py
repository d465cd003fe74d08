"""Fake quantisation: numbers rounded to a grid of whole multiples, with the gradient passed on.

A number stands for ``step * k`` with ``k`` a whole number of so many bits. The gradient goes
straight through the rounding, and is zero where a number was clipped (Jacob et al. 2018,
arXiv:1712.05877).
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

LEAST: Final = float(torch.finfo(torch.float32).eps)
"""The smallest step, of rows and ranges that hold nothing but zeros."""


class Grid(NamedTuple):
    """Where numbers are rounded to: ``step * k`` with ``low <= k <= high``; numbers or tensors."""

    inverse: Any
    """``1 / step`` in float32."""
    step: Any
    low: Any
    high: Any
    clips: bool = True
    """Whether values may lie outside of it."""


def rounded(values: Tensor, grid: Grid) -> Tensor:
    """Round values to a grid, ties to even; NaN stays NaN.

    Args:
        values: any shape.
        grid: where to.

    >>> grid = Grid(2.0, 0.5, -2, 1)
    >>> rounded(torch.tensor([0.3, 0.2, 9.0, -9.0]), grid).tolist()
    [0.5, 0.0, 0.5, -1.0]
    """
    if torch.is_grad_enabled() and values.requires_grad:
        if not grid.clips:
            whole: Tensor = _StraightThrough.apply(values, grid.inverse, grid.step)  # type: ignore[no-untyped-call]
            return whole
        passed: Tensor = _StraightWhereWithin.apply(values, *grid[:4])[0]  # type: ignore[no-untyped-call]
        return passed
    result: Tensor = _multiples(values, grid).clamp(grid.low, grid.high) * grid.step
    return result


def weight_grid(weight: Tensor, bits: int) -> Grid:
    """Return the grid of a weight: one step for each of its rows, and zero among its points.

    Eight and four bits reach to the row's largest weight (Krishnamoorthi 2018, arXiv:1806.08342).
    Two bits leave -1, 0 and 1, whose step is twice the mean magnitude of those that aren't zero,
    from which learned steps begin (Esser et al. 2019, arXiv:1902.08153).

    Args:
        weight: shape ``(out, in, ...)``.
        bits: of a weight.

    >>> weight_grid(torch.tensor([[0.5, -1.27]]), 8).step.tolist()
    [[0.009999999776482582]]
    """
    most = 2 ** (bits - 1) - 1
    sizes = weight.detach().flatten(1).abs()
    if bits > 2:
        reach = sizes.amax(dim=1) / most
    else:
        reach = 2 * sizes.sum(dim=1) / (sizes > 0).sum(dim=1).clamp(min=1)
    step = reach.clamp(min=LEAST).reshape(-1, *[1] * (weight.dim() - 1))
    return Grid(1 / step, step, -most, most, clips=bits == 2)


def range_grid(low: Tensor, high: Tensor, bits: int) -> Grid:
    """Return the grid of activations that lie between two bounds: zero is one of its points.

    Args:
        low: shape ``()``.
        high: likewise.
        bits: of an activation.

    >>> range_grid(torch.tensor(0.0), torch.tensor(2.55), 8)[2:]
    (tensor(0.), tensor(255.), True)
    """
    count = 2**bits - 1
    step = ((high.clamp(min=0) - low.clamp(max=0)) / count).clamp(min=LEAST)
    first = torch.round(low.clamp(max=0) / step).clamp(-count, 0)
    return Grid(1 / step, step, first, first + count)


def whole_numbers(values: Tensor, grid: Grid) -> Tensor:
    """Return which multiple of the step each value is rounded to, as int32."""
    found: Tensor = _multiples(values, grid).clamp(grid.low, grid.high).to(torch.int32)
    return found


def _multiples(values: Tensor, grid: Grid) -> Tensor:
    found: Tensor = torch.round(values * grid.inverse)
    return found


class _StraightThrough(torch.autograd.Function):
    """Of values that lie within the grid, every one."""

    generate_vmap_rule = True

    @staticmethod
    def forward(values: Tensor, inverse: Any, step: Any) -> Tensor:
        result: Tensor = (values * inverse).round_().mul_(step)
        return result

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass  # torch wants one; the gradient needs nothing of what went in

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return gradients[0], None, None


class _StraightWhereWithin(torch.autograd.Function):
    """Of values that may be clipped, whose gradient is zero."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        values: Tensor, inverse: Any, step: Any, low: Any, high: Any
    ) -> tuple[Tensor, Tensor]:
        multiples = (values * inverse).round_()
        clipped = multiples.clamp(low, high)
        within = clipped == multiples
        return clipped.mul_(step), within

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (within,) = ctx.saved_tensors
        return gradients[0] * within, None, None, None, None
