"""How Linear and convolutional layers read units and make new ones."""

from __future__ import annotations

import torch
from torch import Tensor

from rayprune.deploy.compaction.abstract_values import (
    NAN,
    AbstractValue,
    along,
    amplitudes,
    columns,
    unknown,
)
from rayprune.deploy.compaction.findings import (
    Arguments,
    Findings,
    Shapes,
    Use,
    by_column,
    layer_of,
    named,
)


def read_linear(findings: Findings, given: Arguments, shapes: Shapes) -> list[AbstractValue]:
    """Read ``x @ W.T + b`` along the last axis."""
    return [_affine(findings, given, shapes[0], axis=-1, padded=False)]


def read_convolution(findings: Findings, given: Arguments, shapes: Shapes) -> list[AbstractValue]:
    """Read a Conv1d or Conv2d along the channel axis; grouped ones are held whole."""
    weight = given["weight"].parameter
    axis = len(shapes[0]) - given["weight"].channels.dim() + 1
    if given["groups"] != 1:
        findings.hold(given["input"].channels, f"{named(layer_of(weight))} is grouped")
        return [unknown(shapes[0])]
    padding = given["padding"]
    padded = padding != "valid" if isinstance(padding, str) else any(padding)
    return [_affine(findings, given, shapes[0], axis=axis, padded=padded)]


def _affine(
    findings: Findings, given: Arguments, shape: torch.Size, *, axis: int, padded: bool
) -> AbstractValue:
    weight, bias = given["weight"].parameter, given["bias"].parameter if given["bias"] else ""
    seen = columns(given["input"], axis)
    units = findings.units_of(weight, shape[axis])
    constants = seen.constants.where(seen.constants == 0, NAN) if padded else seen.constants
    stuck = constants.isnan() if bias else constants.isnan() | (constants != 0)
    use = Use(
        weight=weight,
        bias=bias,
        rows=units,
        columns=findings.columns_of(given["input"], seen, named(layer_of(weight))),
        constants=constants,
        carried=amplitudes(seen.patterns.where(stuck, 0.0)),
    )
    findings.uses.append(use)
    why = "has zeros around them" if bias else "has no bias to hold them"
    held = use.columns[~use.carried.isnan()]
    findings.note(held, f"they are constant, but {named(layer_of(weight))} {why}")
    return AbstractValue(
        along(units, shape, axis), along(constant_rows(findings, use), shape, axis)
    )


def constant_rows(findings: Findings, use: Use) -> Tensor:
    """Return what each row computes if no input can change it, else NaN; shape ``(out,)``."""
    weight = findings.parameters[use.weight]
    entries = by_column(weight)
    varying = use.constants.isnan()
    moved = (entries[:, varying] != 0).flatten(1).any(1)
    constant = entries[:, ~varying].sum(-1) @ use.constants[~varying]
    if use.bias:
        constant = constant + findings.parameters[use.bias]
    return torch.where(moved, torch.nan, constant)
