"""A convolution with few filters as one with twice as many, of half the kernel, and their sums.

ONNX Runtime computes as many filters side by side as a vector register holds floats. Half as many
leave half of each register empty: pruned from 32 to 8 filters, the first layer of an Atari policy
gets twice as fast with registers of 16, not four times. The two halves of each filter's kernel fill
them, and a second convolution, whose kernel is zeros and ones, adds up what lies side by side.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from rayprune.deploy.formats.rewriting.graphs import (
    Convolution,
    Rewrite,
    add_constant,
    arguments_of,
    calls,
    constant,
    shape_of,
)

_CONVOLVE = torch.ops.aten.conv2d.default
_LEAST_GAIN: Final = 20_000
"""Vectors of products that must be saved: what another operator takes is some 10,000's time."""


def fill_registers(lanes: int) -> Rewrite:
    """Return a `Rewrite` for registers of so many floats."""

    def rewrite(module: GraphModule) -> bool:
        changed = [_rewrite(module, node, lanes) for node in calls(module.graph, _CONVOLVE)]
        return any(changed)

    return rewrite


def _rewrite(module: GraphModule, node: Node, lanes: int) -> bool:
    held = arguments_of(node)
    weight = constant(module, held.weight)
    if weight is None or held.groups != 1 or tuple(held.dilation) != (1, 1):
        return False
    axis = _axis(held, weight)
    if axis is None or _gain(weight, shape_of(node), lanes) < _LEAST_GAIN:
        return False
    halves = torch.cat(weight.chunk(2, dim=axis))
    apart = halves.shape[axis] // held.stride[axis - 2]
    kernel, sums = (add_constant(module, node, x) for x in (halves, _sums(halves, axis)))
    graph, spread = module.graph, [1, 1]
    spread[axis - 2] = apart
    with graph.inserting_before(node):
        parts = graph.call_function(
            _CONVOLVE, (held.given, kernel, None, held.stride, held.padding)
        )
        new = graph.call_function(_CONVOLVE, (parts, sums, held.bias, [1, 1], [0, 0], spread))
    node.replace_all_uses_with(new)
    return True


def _axis(held: Convolution, weight: Tensor) -> int | None:
    """Return along which of a kernel's axes its halves are whole steps apart, columns first."""
    whole = [axis for axis in (3, 2) if weight.shape[axis] % (2 * held.stride[axis - 2]) == 0]
    return whole[0] if whole else None


def _gain(weight: Tensor, out: tuple[int, ...], lanes: int) -> float:
    """Return how many vectors of products are saved for an image."""
    filters, *kernel = weight.shape
    if 2 * filters > lanes:
        return 0
    return math.prod(out[2:]) * (math.prod(kernel) / 2 - 2 * lanes)


def _sums(halves: Tensor, axis: int) -> Tensor:
    """Return the kernel that adds each filter's first half here to its second half further on."""
    filters = len(halves) // 2
    here = torch.eye(filters, 2 * filters, dtype=halves.dtype)
    taps = torch.stack([here, here.roll(filters, dims=1)], dim=-1)
    return taps.unsqueeze(2 if axis == 3 else 3)
