"""Nets run layer by layer, without the calls of modules that only hand on to others.

Layers are asked for their parameters each time: weights that arrive, also of another size, count at
once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Final, TypeAlias

import torch
from ray.rllib.core.models.torch.encoder import TorchCNNEncoder, TorchMLPEncoder
from ray.rllib.core.models.torch.heads import TorchMLPHead
from ray.rllib.core.models.torch.primitives import TorchCNN, TorchMLP
from torch import Tensor, nn

Run: TypeAlias = Callable[[Any], Any]

_PLAIN: Final[dict[type, Run]] = {nn.Tanh: torch.tanh, nn.ReLU: torch.relu}


def straight(net: nn.Module) -> Run:
    """Return a function that computes what calling a net does.

    Args:
        net: an encoder or a head of RLlib's, or any module. An encoder's takes observations here,
            and gives what stands under `ENCODER_OUT`.
    """
    steps = tuple(_steps(net))

    def run(values: Any) -> Any:
        for step in steps:
            values = step(values)
        return values

    return steps[0] if len(steps) == 1 else run


def is_encoder(net: Any) -> bool:
    """Whether a net is an encoder that `straight` knows: others read more than observations."""
    return type(net) in (TorchMLPEncoder, TorchCNNEncoder)


def _steps(net: nn.Module) -> Iterator[Run]:
    kind = type(net)
    inner: Any = net
    if _has_hooks(net):
        yield net
    elif kind is nn.Sequential:
        for layer in net.children():
            yield from _steps(layer)
    elif kind is TorchMLP:
        yield from _steps(inner.mlp)
    elif kind is TorchCNN:
        yield _channels_first
        yield from _steps(inner.cnn)
        yield _channels_last
    elif kind in (TorchMLPEncoder, TorchCNNEncoder):
        yield from _steps(inner.net)
    elif kind is TorchMLPHead:
        yield from _steps(inner.net)
        if inner.clip_log_std:
            yield _clipping(inner)
    elif kind is nn.Linear:
        yield _linear(inner)
    else:
        yield _PLAIN.get(kind, net.forward)


def _linear(layer: nn.Linear) -> Run:
    parameters, linear = layer._parameters, torch.nn.functional.linear
    return lambda values: linear(values, parameters["weight"], parameters["bias"])  # type: ignore[arg-type]


def _clipping(head: Any) -> Run:
    """Return what bounds the standard deviations of a head's outputs, as the head does."""

    def clip(values: Tensor) -> Tensor:
        most: Tensor = head.log_std_clip_param_const
        # The means are between infinities, so that nothing is taken apart and joined again.
        bounds = _bounds(most.item(), values.shape[-1], most.dtype, values.device)
        return torch.clamp(values, *bounds)

    return clip


@lru_cache
def _bounds(
    most: float, size: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return the least and the most that a head's outputs may be.

    Args:
        most: that a logarithm of a standard deviation may be, on either side of zero.
        size: of the outputs, means first.
        dtype: of the bounds.
        device: likewise.
    """
    upper = torch.full((size,), math.inf, dtype=dtype, device=device)
    upper[-(size // 2) :] = most
    return -upper, upper


def _channels_first(images: Tensor) -> Tensor:
    return images.permute(0, 3, 1, 2)


def _channels_last(images: Tensor) -> Tensor:
    return images.permute(0, 2, 3, 1)


def _has_hooks(net: nn.Module) -> bool:
    return bool(net._forward_hooks or net._forward_pre_hooks)
