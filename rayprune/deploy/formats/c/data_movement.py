"""Operators that only move elements: views where C can have them, copies elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from rayprune.deploy.formats.c.program import Program, Value


def add_permuted(program: Program, x: Value, axes: Sequence[int]) -> Value:
    """Add a permutation of axes; axes of length 1 move without a copy."""
    shape = tuple(x.shape[axis] for axis in axes)
    moving = [axis for axis in axes if x.shape[axis] != 1]
    if moving == sorted(moving):
        return x.shaped(shape)
    strides = np.cumprod([1, *x.shape[:0:-1]])[::-1]
    return _copied(program, x, shape, [int(strides[axis]) for axis in axes], 0)


def add_sliced(program: Program, x: Value, axis: int, begin: int, end: int) -> Value:
    """Add a slice with step 1."""
    axis %= len(x.shape)
    shape = (*x.shape[:axis], end - begin, *x.shape[axis + 1 :])
    inner = math.prod(x.shape[axis + 1 :])
    if x.constant is not None:
        taken = x.constant.take(range(begin, end), axis=axis)
        return replace(x, shape=shape, constant=taken)
    if math.prod(x.shape[:axis]) == 1:
        return replace(x, pointer=f"({x.pointer} + {begin * inner})", shape=shape)
    strides = np.cumprod([1, *x.shape[:0:-1]])[::-1].tolist()
    return _copied(program, x, shape, strides, begin * inner)


def add_joined(program: Program, parts: Sequence[Value], axis: int) -> Value:
    """Add a concatenation."""
    first = parts[0]
    axis %= len(first.shape)
    total = sum(part.shape[axis] for part in parts)
    shape = (*first.shape[:axis], total, *first.shape[axis + 1 :])
    result = program.buffer(shape, first.ctype)
    outer, inner = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
    begin = 0
    for part in parts:
        size, pointer = part.shape[axis] * inner, program.pointer(part)
        for row in range(outer):
            place = row * total * inner + begin
            program.loop(size, f"{result.pointer}[{place} + i] = {pointer}[{row * size} + i];")
        begin += size
    return result


def add_padded(program: Program, x: Value, padding: Sequence[int], value: str) -> Value:
    """Add padding with a constant, as ``torch.nn.functional.pad`` says it: last axis first."""
    pairs = [(0, 0)] * (len(x.shape) - len(padding) // 2)
    pairs += [(padding[i], padding[i + 1]) for i in range(len(padding) - 2, -1, -2)]
    for axis, (low, high) in enumerate(pairs):
        if low < 0 or high < 0:  # cuts off
            x = add_sliced(program, x, axis, max(0, -low), x.shape[axis] - max(0, -high))
    pairs = [(max(0, low), max(0, high)) for low, high in pairs]
    shape = tuple(n + low + high for n, (low, high) in zip(x.shape, pairs, strict=True))
    result = program.buffer(shape, x.ctype)
    program.loop(result.size, f"{result.pointer}[i] = {value};")
    strides = np.cumprod([1, *shape[:0:-1]])[::-1].tolist()
    begin = sum(low * stride for (low, _), stride in zip(pairs, strides, strict=True))
    _add_loops(program, x.shape, f"{result.pointer}[{begin}", strides, program.pointer(x))
    return result


def _copied(
    program: Program, x: Value, shape: tuple[int, ...], strides: Sequence[int], begin: int
) -> Value:
    """Add a copy of strided elements."""
    result = program.buffer(shape, x.ctype)
    loops, index = _nest(shape, strides)
    target = _nest(shape, np.cumprod([1, *shape[:0:-1]])[::-1].tolist())[1]
    source = f"{program.pointer(x)}[{begin}{index}]"
    program.add(f"{loops} {result.pointer}[0{target}] = {source};")
    return result


def _add_loops(
    program: Program, shape: Sequence[int], target: str, strides: Sequence[int], source: str
) -> None:
    loops, index = _nest(shape, strides)
    own = _nest(shape, np.cumprod([1, *shape[:0:-1]])[::-1].tolist())[1]
    program.add(f"{loops} {target}{index}] = {source}[0{own}];")


def _nest(shape: Sequence[int], strides: Sequence[int]) -> tuple[str, str]:
    """Return loops over a shape's axes, and the sum of their strides."""
    axes = [axis for axis, length in enumerate(shape) if length > 1]
    loops = " ".join(f"for (i{a} = 0; i{a} < {shape[a]}; i{a}++)" for a in axes)
    return loops, "".join(f" + i{a} * {strides[a]}" for a in axes)
