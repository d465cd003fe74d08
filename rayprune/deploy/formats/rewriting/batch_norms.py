"""BatchNorms of a policy that acts, as part of the layer before them or of the one behind.

With its statistics fixed a BatchNorm is a product and a sum for each channel, and so is what a
Linear or convolution does to its outputs.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from rayprune.deploy.formats.rewriting.graphs import add_constant, calls, constant, shape_of

_ATEN = torch.ops.aten
_NORM, _LINEAR = _ATEN.batch_norm.default, _ATEN.linear.default
_CONVOLVE: Final = (_ATEN.conv1d.default, _ATEN.conv2d.default, _ATEN.conv3d.default)


class _Affine(NamedTuple):
    """What a BatchNorm does to each channel; both float64, shape ``(channels,)``."""

    scale: Tensor
    shift: Tensor


def fold_batch_norms(module: GraphModule) -> bool:
    """Let Linears and convolutions do what BatchNorms beside them do; a `Rewrite`."""
    changed = [_fold(module, node) for node in calls(module.graph, _NORM)]
    return any(changed)


def _fold(module: GraphModule, node: Node) -> bool:
    found = _affine(module, node)
    before: Any = node.args[0]
    if found is None:
        return False
    if len(before.users) == 1 and _into(module, before, found, axis=0):
        node.replace_all_uses_with(before)
        return True
    users = list(node.users)
    if len(users) == 1 and users[0].args[0] is node and _into(module, users[0], found, axis=1):
        users[0].update_arg(0, before)
        return True
    return False


def _affine(module: GraphModule, node: Node) -> _Affine | None:
    arguments: Any = node.args
    weight, bias, mean, variance = (constant(module, given) for given in arguments[1:5])
    known = all(given is None for given in arguments[1:3]) or weight is not None
    if mean is None or variance is None or arguments[5] or not known:
        return None
    scale = torch.rsqrt(variance.double() + arguments[7])
    if weight is not None:
        scale = scale * weight
    return _Affine(scale, -mean * scale + (0.0 if bias is None else bias.double()))


def _into(module: GraphModule, layer: Node, affine: _Affine, *, axis: int) -> bool:
    """Let a layer do it to its outputs (axis 0) or to its inputs (axis 1); say whether it can."""
    arguments: Any = layer.args
    if not _sees_channels(layer, behind=axis == 1):
        return False
    weight, bias = constant(module, arguments[1]), None
    if weight is None:
        return False
    if arguments[2:3] and arguments[2] is not None:
        bias = constant(module, arguments[2])
        if bias is None:
            return False
    held = torch.zeros(len(weight)).double() if bias is None else bias.double()
    layout = [-1 if place == axis else 1 for place in range(weight.dim())]
    scaled = weight.double() * affine.scale.reshape(layout)
    if axis == 0:
        held = held * affine.scale + affine.shift
    else:
        held = held + weight.double().reshape(*weight.shape[:2], -1).sum(-1) @ affine.shift
    new = [add_constant(module, layer, each.to(weight.dtype)) for each in (scaled, held)]
    layer.args = (arguments[0], *new, *arguments[3:])
    return True


def _sees_channels(layer: Node, *, behind: bool) -> bool:
    """Whether a layer's channels are a BatchNorm's, and no zeros around them are its inputs."""
    if layer.target is _LINEAR:
        return len(shape_of(layer)) == 2
    if layer.target not in _CONVOLVE:
        return False
    arguments: Any = layer.args
    padding = arguments[4] if len(arguments) > 4 else [0]
    groups = arguments[6] if len(arguments) > 6 else 1
    padded = padding != "valid" if isinstance(padding, str) else any(padding)
    return not behind or (groups == 1 and not padded)
