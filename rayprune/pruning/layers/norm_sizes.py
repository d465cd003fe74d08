"""Sizes of norm modules: what they say of themselves, and those that a state dict's have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn

from rayprune.pruning.layers.partial_norm import (
    CONSTANTS,
    PARTIAL,
    complete,
    is_partial,
    present_of,
    resize,
    shorten,
)

OVER_CHANNELS: Final = (
    nn.GroupNorm,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
)
NORMS: Final = (*PARTIAL, *PARTIAL.values(), *OVER_CHANNELS)
"""Norms whose units can go. Subclasses are left alone: theirs may be a forward of their own."""


def tell_norm(layer: nn.Module, shape: tuple[int, ...] | None = None) -> None:
    """Make a norm say its size, groups included; do nothing to other layers.

    Args:
        layer: any module.
        shape: what its weights have, or would have; None to read it off them.

    >>> norm = nn.GroupNorm(4, 16, affine=False)
    >>> tell_norm(norm, (8,))
    >>> norm.num_groups, norm.num_channels
    (2, 8)
    """
    if type(layer) not in NORMS:
        return
    held: Tensor | None = layer._parameters.get("weight")
    if held is None:
        held = layer._buffers.get("running_mean")
    size = shape if held is None else tuple(held.shape)
    if size is None:
        return
    if isinstance(layer, (nn.LayerNorm, nn.RMSNorm)):
        layer.normalized_shape = size
    elif isinstance(layer, nn.GroupNorm):
        layer.num_groups = size[0] * layer.num_groups // layer.num_channels
        layer.num_channels = size[0]
    else:
        layer.num_features = size[0]  # type: ignore[assignment]


def fit_norms(module: nn.Module, state: Mapping[str, Any]) -> bool:
    """Make norms partial where a state dict's are, and whole where they are not.

    Returns:
        Whether any changed its class.
    """
    changed = False
    for name, layer in module.named_modules():
        stem = f"{name}." if name else ""
        if f"{stem}{CONSTANTS}" in state and type(layer) in (*PARTIAL, *PARTIAL.values()):
            changed |= not is_partial(layer)
            _take_on(layer, state[f"{stem}{CONSTANTS}"])
        elif is_partial(layer) and _is_told(layer, stem, state):
            changed = True
            complete(layer)
    return changed


def _take_on(norm: nn.Module, constants: Any) -> None:
    if norm._parameters.get("weight") is None and not is_partial(norm):
        resize(norm, round(present_of(norm) * (1 - float(constants[0]))))
    if not is_partial(norm):
        like = next(norm.parameters(), torch.zeros(0))
        shorten(norm, torch.zeros(len(constants), dtype=like.dtype, device=like.device))


def _is_told(norm: nn.Module, stem: str, state: Mapping[str, Any]) -> bool:
    """Whether a state dict, which may be of some parts only, has anything of a norm."""
    if norm._parameters.get("weight") is not None:
        return f"{stem}weight" in state
    parent = stem[: stem.rstrip(".").rfind(".") + 1]
    return any(key.startswith(parent) for key in state)
