"""Operators over images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from torch import fx

from rayprune.deploy.formats.c.convolution import add_convolution, add_pool
from rayprune.deploy.formats.c.data_movement import add_padded
from rayprune.deploy.formats.c.lowering.nodes import Operator, array_of, shape_of, unsupported
from rayprune.deploy.formats.c.program import Program, Value


def _conv2d(
    program: Program,
    node: fx.Node,
    x: Value,
    weight: Value,
    bias: Value | None = None,
    stride: Sequence[int] = (1, 1),
    padding: Any = (0, 0),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
) -> Value:
    if weight.constant is None or groups != 1 or set(dilation) != {1} or isinstance(padding, str):
        raise unsupported(node, "groups, dilation and padding by name aren't known")
    down, across = _pair(padding)
    if down or across:
        x = add_padded(program, x, [across, across, down, down], "0.0f")
    return add_convolution(program, x, weight.constant, array_of(bias), _pair(stride))


def _pool(
    program: Program,
    node: fx.Node,
    x: Value,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    ceil_mode: bool = False,
) -> Value:
    if set(dilation) != {1}:
        raise unsupported(node, "dilation isn't known")
    shape = shape_of(node)
    out = (shape[-2], shape[-1])
    return add_pool(program, x, _pair(kernel), _pair(stride or kernel), _pair(padding), out)


def _pair(given: Sequence[int]) -> tuple[int, int]:
    return (given[0], given[-1])


OPERATORS: Final[Mapping[str, Operator]] = {
    "conv2d": _conv2d,
    "max_pool2d": _pool,
}
