"""Giving a module's parameters other sizes, before weights of those sizes arrive."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from rayprune.pruning.layers.attention import fit_attention
from rayprune.pruning.layers.masked import own_parameters


def fit_to(module: nn.Module, state: Mapping[str, Any]) -> bool:
    """Make parameters as large as those of a state dict, in place, where they differ in size.

    The new ones are zero, and to be loaded; masks of the old ones go. A parameter of another number
    of dimensions is left alone, so that the load fails with torch's own words.

    Args:
        module: any module.
        state: arrays or tensors by full parameter name.

    Returns:
        Whether any parameter was replaced.

    >>> net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    >>> small = nn.Sequential(nn.Linear(2, 1), nn.Linear(1, 1))
    >>> fit_to(net, small.state_dict()), net[0]
    (True, Linear(in_features=2, out_features=1, bias=True))
    """
    new: dict[int, nn.Parameter] = {}
    for name in misfits(module, state):
        old = module.get_parameter(name)
        empty = torch.zeros(tuple(state[name].shape), dtype=old.dtype, device=old.device)
        new.setdefault(id(old), nn.Parameter(empty, requires_grad=old.requires_grad))
    put(module, new)
    fresh = {id(parameter) for parameter in new.values()}
    for layer in module.modules():
        own = [key for key, parameter in own_parameters(layer).items() if id(parameter) in fresh]
        for key in own:
            layer.__dict__.get("masks", {}).pop(key, None)
        if own:
            tell_sizes(layer)
    return bool(new)


def put(module: nn.Module, new: Mapping[int, nn.Parameter]) -> None:
    """Put parameters in the place of others, wherever a module has those; no layer is told.

    Args:
        module: any module.
        new: by the ``id`` of what each takes the place of.
    """
    for layer in module.modules():
        for key, parameter in list(layer.named_parameters(recurse=False, remove_duplicate=False)):
            if id(parameter) in new:
                setattr(layer, key, new[id(parameter)])


def misfits(module: nn.Module, state: Mapping[str, Any]) -> list[str]:
    """Return the parameters whose size differs from a state dict's, by full name.

    >>> misfits(nn.Linear(2, 3), nn.Linear(2, 1).state_dict())
    ['weight', 'bias']
    """
    return [
        name
        for name, parameter in module.named_parameters(remove_duplicate=False)
        if name in state
        and tuple(state[name].shape) != tuple(parameter.shape)
        and len(state[name].shape) == parameter.dim()
    ]


def tell_sizes(layer: nn.Module) -> None:
    """Make a layer say the sizes that its parameters have."""
    if isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = layer.weight.shape
    elif isinstance(layer, (nn.Conv1d, nn.Conv2d)) and layer.groups == 1:
        layer.out_channels, layer.in_channels = layer.weight.shape[:2]
    elif isinstance(layer, nn.MultiheadAttention):
        fit_attention(layer)
    elif isinstance(layer, nn.RNNBase) and not layer.proj_size:
        layer.input_size = layer.get_parameter("weight_ih_l0").shape[1]
        layer.hidden_size = layer.get_parameter("weight_hh_l0").shape[1]
        layer.flatten_parameters()


def shapes_of(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the parameters' shapes by full name.

    >>> shapes_of(nn.Linear(2, 1))
    {'weight': (1, 2), 'bias': (1,)}
    """
    return {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
