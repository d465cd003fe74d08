"""Giving a module's parameters other sizes, before weights of those sizes arrive."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn

from rayprune.pruning.layers.attention import fit_attention, is_known
from rayprune.pruning.layers.kinds import CONVOLUTIONS
from rayprune.pruning.layers.masked import MaskedLayer, own_parameters
from rayprune.pruning.layers.narrow_recurrent import PLACES, fit_recurrent
from rayprune.pruning.layers.norm_sizes import NORMS, fit_norms, tell_norm
from rayprune.pruning.layers.partial_norm import CONSTANTS


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
    changed = fit_norms(module, state) | fit_recurrent(module, state)
    new: dict[int, Tensor] = {}
    for name, old in _misfitting(module, state):
        empty = torch.zeros(tuple(state[name].shape), dtype=old.dtype, device=old.device)
        if isinstance(old, nn.Parameter):
            empty = nn.Parameter(empty, requires_grad=old.requires_grad)
        new.setdefault(id(old), empty)
    put(module, new)
    fresh = {id(tensor) for tensor in new.values()}
    for layer in module.modules():
        norm = dict(_tensors(layer, recurse=False)) if type(layer) in NORMS else {}
        held = {**own_parameters(layer), **norm}
        own = [key for key, tensor in held.items() if id(tensor) in fresh]
        if isinstance(layer, MaskedLayer):
            for key in own:
                layer.masks.pop(key, None)
        if own:
            tell_sizes(layer)
    return changed or bool(new)


def put(module: nn.Module, new: Mapping[int, Tensor]) -> None:
    """Put parameters, and buffers of norms, in the place of others, wherever a module has those.

    No layer is told.

    Args:
        module: any module.
        new: by the ``id`` of what each takes the place of.
    """
    for layer in module.modules():
        for key, tensor in list(_tensors(layer, recurse=False)):
            if id(tensor) in new:
                setattr(layer, key, new[id(tensor)])


def misfits(module: nn.Module, state: Mapping[str, Any]) -> list[str]:
    """Return the parameters whose size differs from a state dict's, by full name.

    >>> misfits(nn.Linear(2, 3), nn.Linear(2, 1).state_dict())
    ['weight', 'bias']
    """
    parameters = dict(module.named_parameters(remove_duplicate=False))
    return [name for name, _ in _misfitting(module, state) if name in parameters]


def _misfitting(module: nn.Module, state: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in _tensors(module, recurse=True):
        if name in state:
            # What holds one number may come as that number.
            size = tuple(getattr(state[name], "shape", ()))
            if size != tuple(tensor.shape) and len(size) == tensor.dim():
                yield name, tensor


def _tensors(module: nn.Module, *, recurse: bool) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters(recurse=recurse, remove_duplicate=False)
    for prefix, part in module.named_modules(remove_duplicate=False) if recurse else [("", module)]:
        # Other buffers are no one's units.
        if type(part) in NORMS:
            yield from part.named_buffers(prefix, recurse=False, remove_duplicate=False)


OF_RESIZED: Final = (CONSTANTS, PLACES)
"""Names in their layer of buffers that only layers have which lost units while they learnt."""
TOLD: Final = (
    nn.Linear,
    nn.RNNBase,
    *CONVOLUTIONS,
    nn.RNNCellBase,
    nn.Embedding,
    nn.PReLU,
)
"""Layers that are told the sizes of their parameters."""


def tells_sizes(layer: nn.Module) -> bool:
    """Whether a layer's forward fits its parameters once `tell_sizes` was called."""
    if isinstance(layer, nn.MultiheadAttention):
        return is_known(layer)
    return isinstance(layer, TOLD) or type(layer) in NORMS


def tell_sizes(
    layer: nn.Module, shape: tuple[int, ...] | None = None, heads: int | None = None
) -> None:
    """Make a layer say the sizes that its parameters have.

    Args:
        layer: any module.
        shape: the weights that it has or would have, for a norm that may have none.
        heads: of an attention layer; None where the shapes tell.
    """
    tell_norm(layer, shape)
    if isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = layer.weight.shape
    elif isinstance(layer, nn.modules.conv._ConvNd):
        _tell_channels(layer)
    elif isinstance(layer, nn.PReLU):
        layer.num_parameters = layer.weight.numel()
    elif isinstance(layer, nn.MultiheadAttention):
        fit_attention(layer, heads)
    elif isinstance(layer, nn.Bilinear):
        layer.out_features, layer.in1_features, layer.in2_features = layer.weight.shape
    elif isinstance(layer, nn.Embedding):
        layer.num_embeddings, layer.embedding_dim = layer.weight.shape
    elif isinstance(layer, nn.RNNCellBase):
        layer.input_size, layer.hidden_size = layer.weight_ih.shape[1], layer.weight_hh.shape[1]
    elif isinstance(layer, nn.RNNBase) and not layer.proj_size:
        layer.input_size = layer.get_parameter("weight_ih_l0").shape[1]
        layer.hidden_size = layer.get_parameter("weight_hh_l0").shape[1]
        layer.flatten_parameters()


def _tell_channels(layer: nn.modules.conv._ConvNd) -> None:
    """Say the channels of a convolution. Groups go whole: they keep how many each gives."""
    rows, columns = layer.weight.shape[:2]
    if layer.transposed:
        rows, columns = columns, rows
        a_group = layer.in_channels // layer.groups
        layer.groups = columns // a_group if layer.groups > 1 else 1
        layer.out_channels, layer.in_channels = rows * layer.groups, columns
    else:
        a_group = layer.out_channels // layer.groups
        layer.groups = rows // a_group if layer.groups > 1 else 1
        layer.out_channels, layer.in_channels = rows, columns * layer.groups


def shapes_of(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the parameters' shapes by full name.

    >>> shapes_of(nn.Linear(2, 1))
    {'weight': (1, 2), 'bias': (1,)}
    """
    return {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
