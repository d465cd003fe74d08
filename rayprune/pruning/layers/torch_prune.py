"""Takes over what `torch.nn.utils.prune` pruned: its masks, and state dicts in its form.

torch keeps a pruned weight as a parameter ``weight_orig``, a buffer ``weight_mask`` and a hook that
multiplies them before each forward. Here it is one dense parameter with exact zeros, and a mask
beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

from rayprune.errors import CheckpointError, InputError
from rayprune.pruning.layers.masked import prunable_name

_ORIG, _MASK = "_orig", "_mask"


def adopt_torch_pruning(name: str, layer: nn.Module) -> dict[str, Tensor]:
    """Turn one layer that `torch.nn.utils.prune` pruned into a plain one, in place.

    The parameter that was ``weight_orig`` becomes ``weight``: the same object, so an optimizer
    that holds it goes on, and its pruned elements are set to exactly zero.

    Args:
        name: the layer's, for messages.
        layer: a Linear, Conv, LSTM or GRU.

    Returns:
        The masks by parameter name, True = keep; empty if torch's prune never touched it.

    Raises:
        InputError: a parameter is pruned for which there are no masks here, such as a bias.

    >>> layer = torch_prune.l1_unstructured(nn.Linear(4, 1), "weight", amount=0.5)
    >>> masks = adopt_torch_pruning("", layer)
    >>> int(masks["weight"].sum()), [key for key, _ in layer.named_parameters()]
    (2, ['bias', 'weight'])
    """
    check_adoptable(name, layer)
    masks: dict[str, Tensor] = {}
    for prefix, part in _parts(layer):
        pruned = _torch_pruned(part)
        masks |= {prefix + key: getattr(part, key + _MASK).detach() != 0 for key in pruned}
        for key in pruned:
            torch_prune.remove(part, key)
    return masks


def check_adoptable(name: str, layer: nn.Module) -> None:
    """Raise InputError if a layer's pruning by torch has no counterpart here."""
    for key in [prefix + key for prefix, part in _parts(layer) for key in _torch_pruned(part)]:
        if not prunable_name(key):
            raise InputError(
                f"Layer {name!r} has its {key!r} pruned by torch.nn.utils.prune, and only weights "
                f"have masks here. Call torch.nn.utils.prune.remove(layer, {key!r}) first: its "
                "zeros then stay until training moves them."
            )


def is_torch_pruned(module: nn.Module) -> bool:
    """Whether `torch.nn.utils.prune` holds a parameter of the module or of a part of it."""
    return any(
        isinstance(hook, torch_prune.BasePruningMethod)
        for part in module.modules()
        for hook in part._forward_pre_hooks.values()
    )


def plain_state(state: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return a state dict without torch's parametrisation, and the masks that it held.

    Args:
        state: tensors or NumPy arrays by name; ``x_orig`` and ``x_mask`` become ``x``.

    Returns:
        The state in its own order, pruned elements exactly zero, and bool masks by full name.

    Raises:
        CheckpointError: half of a pair is missing, or its shapes differ.

    >>> state = {"w_orig": torch.tensor([1.0, 2.0]), "w_mask": torch.tensor([0.0, 1.0])}
    >>> plain_state(state)
    ({'w': tensor([0., 2.])}, {'w': tensor([False,  True])})
    """
    pairs = {
        key.removesuffix(_ORIG)
        for key in state
        if key.endswith(_ORIG) and key.removesuffix(_ORIG) + _MASK in state
    }
    plain: dict[str, Any] = {}
    masks: dict[str, Tensor] = {}
    for key, value in state.items():
        name = key.removesuffix(_ORIG)
        if key.endswith(_MASK) and key.removesuffix(_MASK) in pairs:
            continue
        if key.endswith(_ORIG) and name in pairs:
            mask = state[name + _MASK]
            if tuple(mask.shape) != tuple(value.shape):
                raise CheckpointError(
                    f"{name + _MASK!r} has shape {tuple(mask.shape)}, but {key!r} has "
                    f"{tuple(value.shape)}: the state is broken. Take an earlier one."
                )
            plain[name] = value * mask
            masks[name] = torch.as_tensor(mask) != 0
        else:
            plain[key] = value
    return plain, masks


def _parts(layer: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return a layer, and what it runs as a part of its own, with what their names begin with."""
    output = [("out_proj.", layer.out_proj)] if isinstance(layer, nn.MultiheadAttention) else []
    return [("", layer), *output]


def _torch_pruned(layer: nn.Module) -> list[str]:
    return [
        key.removesuffix(_ORIG)
        for key, _ in layer.named_parameters(recurse=False)
        if key.endswith(_ORIG) and hasattr(layer, key.removesuffix(_ORIG) + _MASK)
    ]
