"""Operators of whole numbers: a layer's sum, what is made of it and where it goes are one loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from torch import fx

from rayprune.deploy.formats.c.elementwise import literal
from rayprune.deploy.formats.c.integer.matrices import rows_of
from rayprune.deploy.formats.c.lowering.nodes import Operator
from rayprune.deploy.formats.c.program import Program, Value
from rayprune.deploy.policy.interface import Array


@dataclass(frozen=True, slots=True)
class Numbers(Value):
    """Whole numbers that lie in memory, less an offset."""

    offset: int = 0


@dataclass(frozen=True, slots=True)
class Sums(Value):
    """Whole numbers of which it is known how each is made, and that lie nowhere yet."""

    read: Numbers | None = None
    weight: Array | None = None
    bias: Array | None = None
    bits: int = 8
    then: tuple[str, ...] = ()
    """Statements that change ``total``, the number of row ``i``."""
    low: int = 0
    high: int = 0
    """Bounds, once there are any."""


def _quantise(
    program: Program, node: fx.Node, x: Value, inverse: float, low: int, high: int
) -> Value:
    bits, offset = _form(low, high)
    made = program.buffer(x.shape, f"int{bits}_t")
    program.kernels.add(f"quantise_{bits}")
    grid = ", ".join(map(literal, (inverse, low, high)))
    source = program.pointer(x)
    program.add(f"quantise_{bits}({source}, {x.size}, {grid}, {offset}, {made.pointer});")
    return Numbers(made.pointer, made.shape, made.ctype, offset=offset)


def _linear(program: Program, node: fx.Node, read: Any, weight: Value, bias: Value) -> Value:
    if not isinstance(read, Numbers):
        read = _laid_down(program, read)
    assert weight.constant is not None
    assert bias.constant is not None
    held = weight.constant
    # Of the numbers as they lie, an offset less.
    shift = bias.constant.astype(np.int64) - read.offset * held.astype(np.int64).sum(axis=1)
    most = int(np.abs(held.astype(np.int64)).max(initial=0))
    bits = next(bits for bits in (2, 4, 8) if most < 2 ** (bits - 1))
    shape = (*read.shape[:-1], len(held))
    return Sums(
        "", shape, "int32_t", read=read, weight=held, bias=shift.astype(np.int32), bits=bits
    )


def _rescale(
    program: Program, node: fx.Node, x: Sums, by: Value, shift: int, low: int, high: int
) -> Value:
    assert by.constant is not None
    program.kernels.add("rescale_")
    one = by.size == 1
    by_row = str(int(by.constant[0])) if one else f"{program.pointer(by)}[i]"
    step = f"total = rescale_(total, {by_row}, {shift}, {low}, {high});"
    return _next(x, step, low, high)


def _tanh(program: Program, node: fx.Node, x: Sums, table: Value) -> Value:
    program.kernels.add("table_tanh_")
    width = 15 - (table.size - 1).bit_length() + 1
    step = f"total = table_tanh_({program.pointer(table)}, {width}, total);"
    return _next(x, step, 0, 0)


def _dequantise(program: Program, node: fx.Node, x: Sums, steps: Value, watched: Value) -> Value:
    made = program.buffer(x.shape)
    program.kernels.add("blank_")
    _add_loop(program, x, f"{made.pointer}[i] = (float)total * {program.pointer(steps)}[i];")
    source = program.pointer(watched)
    program.add(f"blank_({source}, {watched.size}, {made.pointer}, {made.size});")
    return made


def _next(x: Sums, step: str, low: int, high: int) -> Sums:
    return Sums(
        "",
        x.shape,
        "int32_t",
        read=x.read,
        weight=x.weight,
        bias=x.bias,
        bits=x.bits,
        then=(*x.then, step),
        low=low,
        high=high,
    )


def _laid_down(program: Program, x: Sums) -> Numbers:
    bits, offset = _form(x.low, x.high)
    made = program.buffer(x.shape, f"int{bits}_t")
    moved = f"(total + {offset})" if offset else "total"
    _add_loop(program, x, f"{made.pointer}[i] = (int{bits}_t){moved};")
    return Numbers(made.pointer, made.shape, made.ctype, offset=offset)


def _add_loop(program: Program, x: Sums, last: str) -> None:
    assert x.read is not None
    assert x.weight is not None
    assert x.bias is not None
    rows = rows_of(program, x.weight, x.bits, x.read.pointer)
    program.layouts.append(rows.layout)
    program.add(
        f"for (i = 0; i < {len(x.weight)}; i++) {{\n"
        f"    int32_t total = {program.constant(x.bias)}[i];\n    {rows.text}\n"
        + "".join(f"    {step}\n" for step in (*x.then, last))
        + "  }"
    )


def _form(low: int, high: int) -> tuple[int, int]:
    """Return in how many bits numbers lie, and their offset there."""
    bits = 8 if high - low < 2**8 else 16
    within = -(2 ** (bits - 1)) <= low and high < 2 ** (bits - 1)
    return bits, 0 if within else -(2 ** (bits - 1)) - low


OPERATORS: Final[Mapping[str, Operator]] = {
    "quantise": _quantise,
    "integer_linear": _linear,
    "rescale": _rescale,
    "integer_tanh": _tanh,
    "dequantise": _dequantise,
}
