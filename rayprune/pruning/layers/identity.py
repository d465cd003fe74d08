"""The weights with which a layer passes on what it reads, and which layers have such weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rayprune.pruning.layers.masked import MaskedConv1d, MaskedConv2d, MaskedLayer, MaskedLinear


def identity_weight(shape: Sequence[int]) -> Tensor:
    """Return the weights of a layer that changes nothing.

    Args:
        shape: ``(width, width)`` of a Linear, ``(width, width, *kernel)`` of a convolution whose
            kernel has odd sides.

    Returns:
        Bool, of that shape: each output reads the input of its own number, at the kernel's centre.

    >>> identity_weight((2, 2)).int().tolist()
    [[1, 0], [0, 1]]
    >>> identity_weight((2, 2, 3)).int().tolist()
    [[[0, 1, 0], [0, 0, 0]], [[0, 0, 0], [0, 1, 0]]]
    """
    weight = torch.zeros(tuple(shape), dtype=torch.bool)
    centre = tuple(side // 2 for side in shape[2:])
    for unit in range(shape[0]):
        weight[(unit, unit, *centre)] = True
    return weight


def can_be_identity(layer: MaskedLayer) -> bool:
    """Whether a layer's output has the shape of its input, unit by unit and place by place.

    A Linear of one width; a convolution of one width and one group, with stride 1, a kernel of odd
    sides, and padding that keeps the size.
    """
    if isinstance(layer, MaskedLinear):
        return layer.in_features == layer.out_features > 1
    if not isinstance(layer, (MaskedConv1d, MaskedConv2d)):
        return False
    return (
        layer.in_channels == layer.out_channels > 1
        and layer.groups == 1
        and set(layer.stride) == {1}
        and all(side % 2 for side in layer.kernel_size)
        and _keeps_size(layer)
    )


def _keeps_size(layer: nn.Conv1d | nn.Conv2d) -> bool:
    if isinstance(layer.padding, str):
        return layer.padding == "same" or set(layer.kernel_size) == {1}
    return all(
        2 * padding == dilation * (side - 1)
        for padding, dilation, side in zip(
            layer.padding, layer.dilation, layer.kernel_size, strict=True
        )
    )
