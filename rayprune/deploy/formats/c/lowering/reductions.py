"""Operators that reduce axes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from torch import fx

from rayprune.deploy.formats.c.lowering.nodes import Operator, shape_of, unsupported
from rayprune.deploy.formats.c.program import Program, Value
from rayprune.deploy.formats.c.reductions import add_argmax, add_mean


def _mean(
    program: Program,
    node: fx.Node,
    x: Value,
    axes: Any = None,
    keep: bool = False,
    *,
    skip_nan: bool = False,
    divide: bool = True,
    **_: Any,
) -> Value:
    given = range(len(x.shape)) if axes is None or axes == [] else axes
    over = sorted(axis % len(x.shape) for axis in ([given] if isinstance(given, int) else given))
    if over != list(range(over[0], len(x.shape))):
        raise unsupported(node, "it must be over the last axes")
    size = math.prod(x.shape[over[0] :])
    return add_mean(program, x, size, skip_nan=skip_nan, divide=divide).shaped(shape_of(node))


def _nanmean(
    program: Program, node: fx.Node, x: Value, axes: Any = None, keep: bool = False, **_: Any
) -> Value:
    return _mean(program, node, x, axes, keep, skip_nan=True)


def _sum(
    program: Program, node: fx.Node, x: Value, axes: Any = None, *rest: Any, **_: Any
) -> Value:
    return _mean(program, node, x, axes, *rest, divide=False)


def _argmax(
    program: Program, node: fx.Node, x: Value, axis: Any = None, keep: bool = False
) -> Value:
    if axis is None or axis % len(x.shape) != len(x.shape) - 1:
        raise unsupported(node, "it must be over the last axis")
    return add_argmax(program, x).shaped(shape_of(node))


OPERATORS: Final[Mapping[str, Operator]] = {
    "argmax": _argmax,
    "mean": _mean,
    "nanmean": _nanmean,
    "sum": _sum,
}
