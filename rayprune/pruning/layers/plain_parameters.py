"""Copies of modules, and plain parameters in place of those that torch computes from others."""

from __future__ import annotations

import copy
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils import prune as torch_prune
from torch.nn.utils.spectral_norm import SpectralNorm, remove_spectral_norm
from torch.nn.utils.weight_norm import WeightNorm, remove_weight_norm
from torch.utils import _pytree as pytree

from rayprune.pruning.layers.parametrised import tensor_name

M = TypeVar("M", bound=nn.Module)


def copied(module: M) -> M:
    """Return a deep copy, whatever tensors a forward has left in the module.

    `torch.nn.utils.prune`, ``weight_norm`` and the like keep what they compute as attributes, and
    those can't be copied with the graph that they hang on.

    >>> layer = torch_prune.l1_unstructured(nn.Linear(4, 1), "weight", amount=0.5)
    >>> copied(layer).weight.requires_grad
    False
    """
    memo: dict[int, Any] = {}
    for part in module.modules():
        for leaf in pytree.tree_leaves(vars(part)):
            if isinstance(leaf, Tensor) and not leaf.is_leaf:
                memo[id(leaf)] = leaf.detach().clone()
    return copy.deepcopy(module, memo)


@torch.no_grad()
def bake(module: nn.Module) -> None:
    """Make a plain parameter of each that torch computes from others, in place.

    That is: of `torch.nn.utils.prune`, `torch.nn.utils.parametrize`, and the older ``weight_norm``
    and ``spectral_norm``; as they compute it in evaluation mode.

    >>> net = nn.Sequential(torch_prune.random_unstructured(nn.Linear(4, 1), "bias", amount=1))
    >>> bake(net)
    >>> sorted(name for name, _ in net.named_parameters()), int(net[0].bias.count_nonzero())
    (['0.bias', '0.weight'], 0)
    """
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        for part in list(module.modules()):
            _bake_hooked(part)
            if parametrize.is_parametrized(part):
                _bake_parametrized(part)
    finally:
        for part, training in modes:
            part.training = training


def _bake_hooked(part: nn.Module) -> None:
    for hook in list(part._forward_pre_hooks.values()):
        if isinstance(hook, torch_prune.BasePruningMethod):
            torch_prune.remove(part, hook._tensor_name)
        elif isinstance(hook, WeightNorm):
            remove_weight_norm(part, hook.name)
        elif isinstance(hook, SpectralNorm):
            remove_spectral_norm(part, hook.name)


def _bake_parametrized(part: nn.Module) -> None:
    # Not by `remove_parametrizations`: it strips the class, which a copy shares with the original.
    values = {
        name: (getattr(part, name).detach().clone(), list(held.parameters(recurse=False)))
        for name, held in cast("nn.ModuleDict", part.parametrizations).items()
    }
    del part.parametrizations
    part.__class__ = type(part).__bases__[0]
    for name, (value, originals) in values.items():
        if originals:
            trains = any(original.requires_grad for original in originals)
            setattr(part, name, nn.Parameter(value, requires_grad=trains))
            _rename_mask(part, name)
        else:
            part.register_buffer(name, value)


def _rename_mask(part: nn.Module, tensor: str) -> None:
    """Let the mask of what a tensor was made of be the tensor's own."""
    masks: dict[str, Tensor] = part.__dict__.get("masks", {})
    for key in [key for key in masks if key != tensor and tensor_name(key) == tensor]:
        masks[tensor] = masks.pop(key)
