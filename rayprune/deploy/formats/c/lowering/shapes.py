"""Views, casts, and operators that move elements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from torch import fx

from rayprune.deploy.formats.c.data_movement import add_joined, add_padded, add_permuted, add_sliced
from rayprune.deploy.formats.c.elementwise import literal
from rayprune.deploy.formats.c.lowering.nodes import Operator, shape_of, unsupported
from rayprune.deploy.formats.c.program import C_TYPES, Program, Value


def _view(program: Program, node: fx.Node, x: Value, *_: Any, **__: Any) -> Value:
    if x.size != int(np.prod(shape_of(node))):
        raise unsupported(node, "it repeats elements")
    return x.shaped(shape_of(node))


def _cast(program: Program, node: fx.Node, x: Value, *_: Any, **__: Any) -> Value:
    ctype = C_TYPES[str(node.meta["val"].dtype).removeprefix("torch.")]
    if ctype == x.ctype:
        return x
    result = program.buffer(x.shape, ctype)
    program.loop(x.size, f"{result.pointer}[i] = ({ctype}){program.pointer(x)}[i];")
    return result


def _permute(program: Program, node: fx.Node, x: Value, axes: Sequence[int]) -> Value:
    return add_permuted(program, x, [axis % len(x.shape) for axis in axes])


def _transpose(program: Program, node: fx.Node, x: Value, first: int, second: int) -> Value:
    axes = list(range(len(x.shape)))
    axes[first], axes[second] = axes[second], axes[first]
    return add_permuted(program, x, axes)


def _flipped(program: Program, node: fx.Node, x: Value) -> Value:
    """Swap the last two axes."""
    return _transpose(program, node, x, -2, -1)


def _slice(
    program: Program,
    node: fx.Node,
    x: Value,
    axis: int = 0,
    begin: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Value:
    if step != 1:
        raise unsupported(node, "its step isn't 1")
    first, last, _ = slice(begin, end).indices(x.shape[axis])
    return add_sliced(program, x, axis, first, last)


def _select(program: Program, node: fx.Node, x: Value, axis: int, index: int) -> Value:
    return _select_of(program, x, axis, index)


def _select_of(program: Program, x: Value, axis: int, index: int) -> Value:
    axis, index = axis % len(x.shape), index % x.shape[axis]
    part = add_sliced(program, x, axis, index, index + 1)
    return part.shaped((*x.shape[:axis], *x.shape[axis + 1 :]))


def _unbind(program: Program, node: fx.Node, x: Value, axis: int = 0) -> list[Value]:
    return [_select_of(program, x, axis, place) for place in range(x.shape[axis])]


def _split(program: Program, node: fx.Node, x: Value, _: Any, axis: int = 0) -> list[Value]:
    """Take a split or a chunk apart; how large the parts are, the graph knows."""
    parts, begin = [], 0
    for part in node.meta["val"]:
        size = int(part.shape[axis])
        parts.append(add_sliced(program, x, axis, begin, begin + size))
        begin += size
    return parts


def _cat(program: Program, node: fx.Node, parts: Sequence[Value], axis: int = 0) -> Value:
    return add_joined(program, parts, axis)


def _stack(program: Program, node: fx.Node, parts: Sequence[Value], axis: int = 0) -> Value:
    axis %= len(shape_of(node))
    wide = [part.shaped((*part.shape[:axis], 1, *part.shape[axis:])) for part in parts]
    return add_joined(program, wide, axis)


def _pad(
    program: Program,
    node: fx.Node,
    x: Value,
    padding: Sequence[int],
    mode: str = "constant",
    value: float | None = None,
) -> Value:
    if mode != "constant":
        raise unsupported(node, "only constants are padded with")
    return add_padded(program, x, padding, literal(value or 0.0))


def _zero_pad(
    program: Program, node: fx.Node, x: Value, padding: Sequence[int], value: float = 0.0
) -> Value:
    return add_padded(program, x, padding, literal(value))


def _getitem(program: Program, node: fx.Node, values: Sequence[Value], place: int) -> Value:
    return values[place]


OPERATORS: Final[Mapping[str, Operator]] = {
    **dict.fromkeys(
        ("view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "expand", "expand_as"),
        _view,
    ),
    **dict.fromkeys(("alias", "contiguous", "clone", "detach", "dropout"), _view),
    # Without an input they are folded.
    **dict.fromkeys(("zeros", "ones", "full", "arange", "repeat", "zeros_like"), _view),
    **dict.fromkeys(("to", "_to_copy", "type_as"), _cast),
    **dict.fromkeys(("split", "chunk", "split_with_sizes", "unsafe_chunk", "unsafe_split"), _split),
    "cat": _cat,
    "constant_pad_nd": _zero_pad,
    "getitem": _getitem,
    "mT": _flipped,
    "pad": _pad,
    "permute": _permute,
    "select": _select,
    "slice": _slice,
    "stack": _stack,
    "transpose": _transpose,
    "unbind": _unbind,
}
