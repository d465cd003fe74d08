"""Images that are read as they lie, channels last or first, instead of transposed copies.

Channels last, the columns under a kernel are neighbours together with their channels. An image of
``(height, width, channels)`` is one of ``(1, height, width * channels)`` too, where a kernel of
``(channels, rows, columns)`` is one of ``(1, rows, columns * channels)``. The copy takes a tenth of
a pruned Atari policy's time in ONNX Runtime. Behind convolutions RLlib puts channels last again and
flattens: a Linear whose columns are in the other order needs no copy either.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch.fx import GraphModule, Node

from rayprune.deploy.formats.rewriting.graphs import (
    add_constant,
    arguments_of,
    calls,
    constant,
    shape_of,
)

_ATEN = torch.ops.aten
_CONVOLVE, _PAD = _ATEN.conv2d.default, _ATEN.pad.default
_LINEAR, _FLATTEN = _ATEN.linear.default, _ATEN.flatten.using_ints
_TO_FIRST, _TO_LAST = (0, 3, 1, 2), (0, 2, 3, 1)
_MOST_CHANNELS: Final = 32
"""With 64, ONNX Runtime took 5 % longer: registers are full of channels then, too."""


def read_as_it_lies(module: GraphModule) -> bool:
    """Let convolutions and Linears read images before they are transposed; a `Rewrite`."""
    changed = [_convolve_it(module, node) for node in calls(module.graph, _CONVOLVE)]
    changed += [_multiply_it(module, node) for node in calls(module.graph, _LINEAR)]
    return any(changed)


def _convolve_it(module: GraphModule, node: Node) -> bool:
    """Let a convolution of a channels-last image, padded or not, see it as one wide channel."""
    held = arguments_of(node)
    weight = constant(module, held.weight)
    pad: Any = held.given if _pads_with_a_number(held.given) else None
    image = _permuted(held.given if pad is None else pad.args[0], _TO_FIRST)
    if weight is None or image is None or held.groups != 1 or held.dilation[1] != 1:
        return False
    _, height, width, channels = shape_of(image)
    if channels > _MOST_CHANNELS:
        return False
    kernel = add_constant(module, node, weight.permute(0, 2, 3, 1).flatten(2).unsqueeze(1))
    graph = module.graph
    with graph.inserting_before(node):
        x = graph.call_function(_ATEN.reshape.default, (image, [-1, 1, height, width * channels]))
        if pad is not None:
            left, right, *rows = pad.args[1]
            wider = [left * channels, right * channels, *rows]
            x = graph.call_function(_PAD, (x, wider, *pad.args[2:]))
        stride = [held.stride[0], held.stride[1] * channels]
        padding = [held.padding[0], held.padding[1] * channels]
        new = graph.call_function(
            _CONVOLVE, (x, kernel, held.bias, stride, padding, [held.dilation[0], 1])
        )
    new.meta["val"] = node.meta["val"]
    node.replace_all_uses_with(new)
    return True


def _multiply_it(module: GraphModule, node: Node) -> bool:
    """Let a Linear of an image flattened channels last read it flattened channels first."""
    arguments: Any = node.args
    flat, *weights = arguments
    image = _permuted(flat.args[0], _TO_LAST) if _flattens(flat) else None
    weight = constant(module, weights[0])
    if image is None or weight is None:
        return False
    _, *sizes = shape_of(flat.args[0])
    columns = weight.unflatten(1, sizes).permute(_TO_FIRST).flatten(1)
    held = add_constant(module, node, columns)
    with module.graph.inserting_before(node):
        x = module.graph.call_function(_FLATTEN, (image, 1))
        new = module.graph.call_function(_LINEAR, (x, held, *weights[1:]))
    new.meta["val"] = node.meta["val"]
    node.replace_all_uses_with(new)
    return True


def _flattens(node: Any) -> bool:
    return node.target is _FLATTEN and tuple(node.args[1:]) in ((1,), (1, -1), (1, 3))


def _pads_with_a_number(node: Node) -> bool:
    if node.target is not _PAD:
        return False
    sides: Any = node.args[1]
    # Two of the columns, and two of the rows where they are padded.
    return len(sides) in (2, 4) and node.args[2:3] in ((), ("constant",))


def _permuted(node: Any, axes: tuple[int, ...]) -> Any:
    """Return what ``node`` is a permutation of, None if it is none or another one."""
    permuted = node.target is _ATEN.permute.default
    return node.args[0] if permuted and tuple(node.args[1]) == axes else None
