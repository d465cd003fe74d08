"""Matrix products: by constant weights, and of two computed matrices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from torch import fx

from rayprune.deploy.formats.c.attention import add_product
from rayprune.deploy.formats.c.elementwise import add_binary
from rayprune.deploy.formats.c.lowering.nodes import Operator, array_of, unsupported
from rayprune.deploy.formats.c.matrices import add_linear
from rayprune.deploy.formats.c.program import Program, Value


def _linear(
    program: Program, node: fx.Node, x: Value, weight: Value, bias: Value | None = None
) -> Value:
    if weight.constant is None:
        raise unsupported(node, "its weight is computed")
    return add_linear(program, x, weight.constant, array_of(bias))


def _product(program: Program, node: fx.Node, a: Value, b: Value) -> Value:
    if b.constant is not None and len(b.shape) == 2:
        return add_linear(program, a, np.ascontiguousarray(b.constant.T), None)
    if len(a.shape) < 2 or a.shape[:-2] != b.shape[:-2]:
        raise unsupported(node, "its matrices must be in batches of one shape")
    return add_product(program, a, b)


def _added_product(
    program: Program, node: fx.Node, added: Value, a: Value, b: Value, **scales: Any
) -> Value:
    if set(scales.values()) - {1}:
        raise unsupported(node, "it scales")
    found = add_binary(program, "add", _product(program, node, a, b), added)
    if found is None:
        raise unsupported(node, "what it adds broadcasts in a way that C isn't written for")
    return found


OPERATORS: Final[Mapping[str, Operator]] = {
    **dict.fromkeys(("matmul", "bmm"), _product),
    "baddbmm": _added_product,
    "linear": _linear,
}
