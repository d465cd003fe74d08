"""Elementwise operators that have parameters; those without stand in `elementwise`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from torch import fx

from rayprune.deploy.formats.c.data_movement import add_sliced
from rayprune.deploy.formats.c.elementwise import add_binary, add_unary, literal
from rayprune.deploy.formats.c.lowering.nodes import Operator, as_value, unsupported
from rayprune.deploy.formats.c.program import Program, Value


def _clamp(program: Program, node: fx.Node, x: Value, low: Any = None, high: Any = None) -> Value:
    if isinstance(low, Value) or isinstance(high, Value):
        for name, bound in (("maximum", low), ("minimum", high)):
            limited = x if bound is None else add_binary(program, name, x, as_value(bound))
            if limited is None:
                raise unsupported(node, "its bounds broadcast in a way that C isn't written for")
            x = limited
        return x
    bounds = {
        "low": -np.inf if low is None else float(low),
        "high": np.inf if high is None else float(high),
    }
    return add_unary(program, "hardtanh", x, **bounds)


def _elu(program: Program, node: fx.Node, x: Value, alpha: float = 1.0, *_: Any) -> Value:
    return add_unary(program, "elu", x, alpha=alpha)


def _leaky(program: Program, node: fx.Node, x: Value, alpha: float = 0.01) -> Value:
    return add_unary(program, "leaky_relu", x, alpha=alpha)


def _gelu(program: Program, node: fx.Node, x: Value, approximate: str = "none") -> Value:
    if approximate != "none":
        raise unsupported(node, "its approximation by tanh isn't")
    return add_unary(program, "gelu", x)


def _softplus(
    program: Program, node: fx.Node, x: Value, beta: float = 1.0, threshold: float = 20.0
) -> Value:
    if (beta, threshold) != (1, 20):
        raise unsupported(node, "only its defaults are known")
    return add_unary(program, "softplus", x)


def _glu(program: Program, node: fx.Node, x: Value, axis: int = -1) -> Value:
    half = x.shape[axis] // 2
    gate = add_unary(program, "sigmoid", add_sliced(program, x, axis, half, 2 * half))
    result = add_binary(program, "mul", add_sliced(program, x, axis, 0, half), gate)
    assert result is not None  # both are of one shape
    return result


def _power(program: Program, node: fx.Node, x: Value, exponent: Any) -> Value:
    if exponent != 2:
        raise unsupported(node, "only squares are known")
    return add_unary(program, "square", x)


def _nan_to_num(
    program: Program, node: fx.Node, x: Value, nan: Any = None, above: Any = None, below: Any = None
) -> Value:
    limit = float(np.finfo(np.float32).max)
    put = [
        literal(v if v is not None else d) for v, d in ((nan, 0.0), (above, limit), (below, -limit))
    ]
    result, source = program.buffer(x.shape), f"{program.pointer(x)}[i]"
    top = literal(limit)
    program.loop(
        x.size,
        f"{result.pointer}[i] = {source} != {source} ? {put[0]} : {source} > {top} ? {put[1]} "
        f": {source} < -{top} ? {put[2]} : {source};",
    )
    return result


OPERATORS: Final[Mapping[str, Operator]] = {
    **dict.fromkeys(("clamp", "hardtanh"), _clamp),
    "elu": _elu,
    "gelu": _gelu,
    "glu": _glu,
    "leaky_relu": _leaky,
    "nan_to_num": _nan_to_num,
    "pow": _power,
    "softplus": _softplus,
}
