"""What each place of a convolution sees: patches of its input, or of a transposed one's output."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


def patches(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d, x: Tensor) -> Tensor:
    """Return what each place of a convolution's output sees, ``(n, places, groups, in * kernel)``.

    Args:
        layer: of any padding, stride, dilation and number of groups.
        x: its input, ``(n, channels, *positions)``.
    """
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    x = functional.pad(x, layer._reversed_padding_repeated_twice, mode=mode)
    kernel, dilation, stride = layer.kernel_size, layer.dilation, layer.stride
    if isinstance(layer, nn.Conv3d):
        return _in_groups(_windows(x, kernel, dilation, stride), layer.groups)
    if isinstance(layer, nn.Conv1d):
        x = x.unsqueeze(2)
        kernel, dilation, stride = (1, *kernel), (1, *dilation), (1, *stride)
    columns: Tensor = functional.unfold(x, kernel, dilation=dilation, stride=stride)
    count, _, places = columns.shape
    width = x.shape[1] // layer.groups * math.prod(kernel)
    shaped = columns.reshape(count, layer.groups, width, places)
    return shaped.permute(0, 3, 1, 2)


def written(
    layer: nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d,
    output: Tensor,
    places: Sequence[int],
) -> Tensor:
    """Return what each place of a transposed convolution's input writes to of its output.

    Args:
        layer: of any padding, stride, dilation and number of groups.
        output: shaped like its output, ``(n, channels, *positions)``, such as gradients there.
        places: the positions of the input.

    Returns:
        Shape ``(n, places, groups, out * kernel)``, zero for what padding has cut off.
    """
    pads: list[int] = []
    for axis, count in enumerate(places):
        reach = layer.dilation[axis] * (layer.kernel_size[axis] - 1) + 1
        padding = int(layer.padding[axis])
        needed = (count - 1) * layer.stride[axis] + reach
        pads = [padding, needed - padding - output.shape[axis + 2], *pads]
    padded = functional.pad(output, pads)
    return _in_groups(
        _windows(padded, layer.kernel_size, layer.dilation, layer.stride), layer.groups
    )


def _windows(
    x: Tensor, kernel: Sequence[int], dilation: Sequence[int], stride: Sequence[int]
) -> Tensor:
    """Return sliding windows, ``(n, channels, *places, *kernel)``."""
    for axis, (side, gap, step) in enumerate(zip(kernel, dilation, stride, strict=True)):
        x = x.unfold(axis + 2, gap * (side - 1) + 1, step)[..., ::gap]
    return x


def _in_groups(windows: Tensor, groups: int) -> Tensor:
    count, channels, *rest = windows.shape
    axes = len(rest) // 2
    flat = windows.reshape(count, groups, channels // groups, math.prod(rest[:axes]), -1)
    return flat.permute(0, 3, 1, 2, 4).flatten(3)


def ones_written(
    layer: nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d, x: Tensor
) -> Tensor:
    """Return which kernel elements reach the output from each place, ``(places, kernel)``.

    Args:
        layer: a transposed convolution.
        x: its input.
    """
    size = [
        (count - 1) * layer.stride[axis]
        - 2 * int(layer.padding[axis])
        + layer.dilation[axis] * (layer.kernel_size[axis] - 1)
        + int(layer.output_padding[axis])
        + 1
        for axis, count in enumerate(x.shape[2:])
    ]
    ones = torch.ones(1, layer.out_channels, *size, dtype=x.dtype, device=x.device)
    first = written(layer, ones, x.shape[2:])[0, :, 0]
    return first.view(len(first), layer.out_channels // layer.groups, -1)[:, 0]
