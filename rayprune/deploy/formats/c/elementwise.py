"""Elementwise operators of torch, as C expressions."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from rayprune.deploy.formats.c.program import Program, Value


@dataclass(frozen=True, slots=True)
class Expression:
    """What is computed of ``a`` (and ``b``), and by which kernels."""

    text: str
    kernels: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    array: str = ""
    """A kernel that computes ``y`` of ``a`` for the whole array before, in registers' widths."""


UNARY: Final[Mapping[str, Expression]] = {
    "abs": Expression("{a} < 0.0f ? -{a} : {a}"),
    "elu": Expression("{a} > 0.0f ? {a} : {alpha} * ({y} - 1.0f)", array="exps_"),
    "exp": Expression("", array="exps_"),
    # What is added is zero, or NaN for an infinity: there torch's own vectors give NaN.
    "gelu": Expression(
        "0.5f * {a} * (1.0f + erff({a} * 0.707106781f)) + ({a} - {a})", (), ("math",)
    ),
    "hardtanh": Expression("at_most_({high}, at_least_({low}, {a}))", ("at_least_", "at_most_")),
    "leaky_relu": Expression("{a} > 0.0f ? {a} : {alpha} * {a}"),
    "neg": Expression("-{a}"),
    "reciprocal": Expression("1.0f / {a}"),
    "relu": Expression("{a} < 0.0f ? 0.0f : {a}"),
    "rsqrt": Expression("1.0f / sqrtf({a})", (), ("math",)),
    "sigmoid": Expression("", array="sigmoids_"),
    "silu": Expression("{a} * {y}", array="sigmoids_"),
    "softplus": Expression("{a} > 20.0f ? {a} : logf(1.0f + {y})", (), ("math",), "exps_"),
    "sqrt": Expression("sqrtf({a})", (), ("math",)),
    "square": Expression("{a} * {a}"),
    "tanh": Expression("", array="tanhs_"),
}
BINARY: Final[Mapping[str, Expression]] = {
    "add": Expression("{a} + {b}"),
    "sub": Expression("{a} - {b}"),
    "rsub": Expression("{b} - {a}"),
    "mul": Expression("{a} * {b}"),
    "div": Expression("{a} / {b}"),
    "eq": Expression("{a} == {b}"),
    "maximum": Expression("max_({a}, {b})", ("max_",)),
    "minimum": Expression("min_({a}, {b})", ("min_",)),
}


def literal(value: float) -> str:
    """Return a float as C writes it.

    Nine digits tell any two float32 apart.

    >>> literal(0.1), literal(2), literal(float("-inf"))
    ('0.100000001f', '2.0f', '-INFINITY')
    """
    if np.isnan(value):
        return "NAN"
    if np.isinf(value):
        return "-INFINITY" if value < 0 else "INFINITY"
    text = f"{np.float32(value):.9g}"
    return f"{text}f" if any(c in text for c in ".e") else f"{text}.0f"


def add_unary(program: Program, name: str, x: Value, **parameters: float) -> Value:
    """Add one of `UNARY` to a program."""
    what = UNARY[name]
    result, source = program.buffer(x.shape), program.pointer(x)
    given = {key: literal(value) for key, value in parameters.items()}
    _need(program, what)
    if what.array:
        # Buffers have room for whole registers; what is given or constant need not.
        size = f"UP({x.size})" if program.is_buffer(source) else str(x.size)
        program.add(f"{what.array}({source}, {size}, {result.pointer});")
    if what.text:
        text = what.text.format(a=f"{source}[i]", y=f"{result.pointer}[i]", **given)
        program.loop(x.size, f"{result.pointer}[i] = {text};")
    program.in_place.add((result.pointer, source))
    return result


def add_binary(program: Program, name: str, a: Value, b: Value) -> Value | None:
    """Add one of `BINARY` to a program; None where the shapes broadcast in a way C hasn't."""
    shape = np.broadcast_shapes(a.shape, b.shape)
    places = [place(value, shape) for value in (a, b)]
    if None in places:
        return None
    what = BINARY[name]
    # Whole numbers stay whole: an action that is counted from elsewhere than 0.
    kind = a.ctype if a.ctype == b.ctype else "float"
    result = program.buffer(shape, "uint8_t" if name == "eq" else kind)
    pointers = [program.pointer(value) for value in (a, b)]
    for own, other in ((0, 1), (1, 0)):
        pointer = pointers[own]
        alone = program.is_buffer(pointer) and not re.search(rf"\b{pointer}\b", pointers[other])
        if alone and places[own] == "[i]":
            program.in_place.add((result.pointer, pointer))
    _need(program, what)
    text = what.text.format(a=f"{pointers[0]}{places[0]}", b=f"{pointers[1]}{places[1]}")
    program.loop(result.size, f"{result.pointer}[i] = {text};")
    return result


def place(value: Value, shape: tuple[int, ...]) -> str | None:
    """Return the index of the element that stands at ``i`` of the whole shape.

    None where a value is repeated in between: over axes that are neither its first nor its last.

    >>> [place(Value("x", own), (2, 3, 4)) for own in ((4,), (3, 1), (2, 1, 1), (2, 1, 4))]
    ['[i % 4]', '[i / 4 % 3]', '[i / 12 % 2]', None]
    """
    size = math.prod(shape)
    if value.size == size:
        return "[i]"
    if value.size == 1:
        return "[0]"
    own = [1] * (len(shape) - len(value.shape)) + list(value.shape)
    axes = [axis for axis in range(len(shape)) if own[axis] > 1]
    first, last = axes[0], axes[-1]
    if own[first : last + 1] != list(shape[first : last + 1]):
        return None
    repeats = math.prod(shape[last + 1 :])
    return f"[i / {repeats} % {value.size}]" if repeats > 1 else f"[i % {value.size}]"


def _need(program: Program, what: Expression) -> None:
    program.kernels.update(what.kernels, filter(None, [what.array]))
    program.headers.update(what.headers)
