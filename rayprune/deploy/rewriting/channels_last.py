"""A convolution that reads an image as it lies, channels last, instead of a transposed copy.

Channels last, the columns under a kernel are neighbours together with their channels. An image of
``(height, width, channels)`` is one of ``(1, height, width * channels)`` too, where a kernel of
``(channels, rows, columns)`` is one of ``(1, rows, columns * channels)``. The copy takes a tenth of
a pruned Atari policy's time in ONNX Runtime.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule, Node

from rayprune.deploy.rewriting.graphs import add_constant, arguments_of, calls, constant, shape_of

_ATEN = torch.ops.aten
_CONVOLVE, _PAD = _ATEN.conv2d.default, _ATEN.pad.default
_TO_CHANNELS_FIRST = (0, 3, 1, 2)


def read_channels_last(module: GraphModule) -> bool:
    """Let convolutions of transposed images, padded or not, read the images; a `Rewrite`."""
    changed = [_rewrite(module, node) for node in calls(module.graph, _CONVOLVE)]
    return any(changed)


def _rewrite(module: GraphModule, node: Node) -> bool:
    held = arguments_of(node)
    weight = constant(module, held.weight)
    pad: Any = held.given if _pads_with_a_number(held.given) else None
    image = _transposed(held.given if pad is None else pad.args[0])
    if weight is None or image is None or held.groups != 1 or held.dilation[1] != 1:
        return False
    _, height, width, channels = shape_of(image)
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


def _pads_with_a_number(node: Node) -> bool:
    if node.target is not _PAD:
        return False
    sides: Any = node.args[1]
    # Two of the columns, and two of the rows where they are padded.
    return len(sides) in (2, 4) and node.args[2:3] in ((), ("constant",))


def _transposed(node: Any) -> Any:
    """Return the image whose channels come first here and last there."""
    permuted = node.target is _ATEN.permute.default
    return node.args[0] if permuted and tuple(node.args[1]) == _TO_CHANNELS_FIRST else None
