"""How Linear and convolutional layers read units and make new ones."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from rayprune.deploy.compaction.abstract_values import (
    NAN,
    AbstractValue,
    Columns,
    along,
    amplitudes,
    columns,
)
from rayprune.deploy.compaction.channels import PINNED
from rayprune.deploy.compaction.findings import (
    Arguments,
    Findings,
    Shapes,
    Use,
    by_column,
    named,
    owner_of,
)


def read_linear(findings: Findings, given: Arguments, shapes: Shapes) -> list[AbstractValue]:
    """Read ``x @ W.T + b`` along the last axis."""
    return [_affine(findings, given, shapes[0], axis=-1, padded=False)]


def read_convolution(findings: Findings, given: Arguments, shapes: Shapes) -> list[AbstractValue]:
    """Read a convolution along the channel axis; groups go whole."""
    padding = given["padding"]
    padded = padding != "valid" if isinstance(padding, str) else any(padding)
    return [_convolved(findings, given, shapes[0], padded=padded)]


def read_transposed(findings: Findings, given: Arguments, shapes: Shapes) -> list[AbstractValue]:
    """Read a transposed convolution, whose edges see fewer inputs, as if zeros surrounded them."""
    return [_convolved(findings, given, shapes[0], padded=True, axes=(1, 0))]


def read_embedding(findings: Findings, given: Arguments, shapes: Shapes) -> list[AbstractValue]:
    """Read a table of symbols: which of them are asked for is not known, so that all stay."""
    weight, shape = given["weight"].parameter, shapes[0]
    units = findings.units_of(weight, shape[-1], (1, 0))
    symbols = torch.full(given["weight"].channels.shape[:1], PINNED)
    never = torch.full(symbols.shape, NAN, dtype=torch.float64)
    use = Use(weight, "", units, symbols, never, never, axes=(1, 0))
    findings.uses.append(use)
    known = along(constant_rows(findings, use), shape, -1)
    return [AbstractValue(along(units, shape, -1), known)]


def _convolved(
    findings: Findings,
    given: Arguments,
    shape: torch.Size,
    *,
    padded: bool,
    axes: tuple[int, int] = (0, 1),
) -> AbstractValue:
    axis = len(shape) - given["weight"].channels.dim() + 1
    value = _affine(findings, given, shape, axis=axis, padded=padded, axes=axes)
    use = findings.uses[-1]
    if use.groups > 1:
        # Each group goes with all that it gives; of what it is given, all groups lose the same.
        first = use.whole.unflatten(0, (use.groups, -1))
        findings.channels.tie(first, first[:, :1])
        within = use.within.unflatten(0, (use.groups, -1))
        findings.rectangles.append(torch.cat([first[:, :1], within], 1))
        findings.earnest.append(torch.cat([use.rows, use.columns]))
    return value


def _affine(
    findings: Findings,
    given: Arguments,
    shape: torch.Size,
    *,
    axis: int,
    padded: bool,
    axes: tuple[int, int] = (0, 1),
) -> AbstractValue:
    weight, bias = given["weight"].parameter, given["bias"].parameter if given["bias"] else ""
    seen = columns(given["input"], axis)
    return affine(
        findings,
        Use(
            weight=weight,
            bias=bias,
            rows=findings.units_of(weight, shape[axis], axes),
            columns=findings.columns_of(given["input"], seen, named(owner_of(weight))),
            constants=seen.constants.where(seen.constants == 0, NAN) if padded else seen.constants,
            carried=seen.constants,
            axes=axes,
            groups=given.get("groups", 1),
        ),
        seen,
        shape,
        axis,
    )


def affine(
    findings: Findings, use: Use, seen: Columns, shape: torch.Size, axis: int
) -> AbstractValue:
    """Note one use of a weight, and return what it gives.

    Args:
        findings: of the forward.
        use: its `carried` is still to be found.
        seen: what it reads.
        shape: of the result.
        axis: of the result, along which its rows are.
    """
    stuck = use.constants.isnan() if use.bias else use.constants.isnan() | (use.constants != 0)
    carried = amplitudes(seen.patterns.where(stuck, 0.0))
    # A column that another carries would have to be one of the same group.
    use = replace(use, carried=carried if use.groups == 1 else torch.full_like(carried, NAN))
    findings.uses.append(use)
    why = "has zeros around them" if use.bias else "has no bias to hold them"
    held = use.columns[~carried.isnan()]
    findings.note(held, f"they are constant, but {named(owner_of(use.weight))} {why}")
    known = along(constant_rows(findings, use), shape, axis)
    return AbstractValue(along(use.rows, shape, axis), known)


def constant_rows(findings: Findings, use: Use) -> Tensor:
    """Return what each row computes if no input can change it, else NaN; shape ``(out,)``."""
    entries = by_column(findings.parameters[use.weight], use.axes, use.groups)
    varying = use.constants.isnan()
    moved = (entries[:, varying] != 0).flatten(1).any(1)
    constant = entries[:, ~varying].sum(-1) @ use.constants[~varying]
    if use.bias:
        constant = constant + findings.parameters[use.bias]
    return torch.where(moved, torch.nan, constant)
