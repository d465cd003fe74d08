"""A plan of compaction, apart from its application: one plan serves weights, masks and moments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from rayprune.deploy.compaction.sizes.resized_forward import ResizedForward, resize_forward
from rayprune.pruning.layers.masked import MaskedLayer
from rayprune.pruning.layers.narrow_recurrent import can_be_narrow, is_narrow, narrow
from rayprune.pruning.layers.partial_norm import shorten
from rayprune.pruning.layers.resizing import put, tell_sizes

Kept = tuple[Tensor, ...]
"""For each leading axis of a parameter the indices that are kept."""


@dataclass(frozen=True, slots=True)
class Removed:
    """What goes of one layer."""

    layer: str
    kind: str
    """``neuron``, ``filter``, ``hidden unit`` or ``head``."""
    units: int
    of: int


@dataclass(frozen=True, slots=True)
class HeldBack:
    """What stays although it might have gone, and why."""

    layer: str
    units: int
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What compaction does to a module; for a module whose weights are zero where its were."""

    kept: Mapping[str, Kept] = field(default_factory=dict)
    """By parameter; those that stay whole are left out."""
    emptied: Mapping[str, Kept] = field(default_factory=dict)
    """Of the kept indices those that are filled with zeros: the one unit that no layer can be
    without, when all of its units are dead."""
    folds: Mapping[str, Tensor] = field(default_factory=dict)
    """What is added to a parameter, before its rows and columns are picked; float64, of its shape:
    to a bias, or to the column of a constant that carries others of the same pattern."""
    units: Mapping[str, Tensor] = field(default_factory=dict)
    """By layer, the units of the old layer that live on in the new one (-1 for an empty one)."""
    states: Mapping[int, Tensor] = field(default_factory=dict)
    """Units kept along the last axis of inputs that are recurrent states, by place."""
    returned: Mapping[int, Tensor] = field(default_factory=dict)
    """Likewise of outputs."""
    wide_states: bool = False
    """Whether states come and go as wide as before, and only the layers become narrower: see
    `rayprune.pruning.layers.narrow_recurrent`."""
    grounded: Mapping[int, Tensor] = field(default_factory=dict)
    """Places in states that come in which must be zero: of hidden units that are zero from a zero
    state on, by the input's place. All states that the old module itself returns are so."""
    norms: Mapping[str, Tensor] = field(default_factory=dict)
    """By layer, what a LayerNorm or RMSNorm keeps of the constants that went from its inputs; see
    `rayprune.pruning.layers.partial_norm.shorten`."""
    normalised: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """By norm module, the shape that its weights have then, or would have."""
    heads: Mapping[str, int] = field(default_factory=dict)
    """How many heads attention layers have then, by layer."""
    misfits: tuple[str, ...] = ()
    """What in the forward has sizes written into it that don't fit, if they are not computed."""
    resized: Mapping[str, ResizedForward] = field(default_factory=dict)
    """By module, its own forward with sizes that fit."""
    removed: tuple[Removed, ...] = ()
    left: tuple[HeldBack, ...] = ()

    def pick(self, name: str, tensor: Tensor, *, fold: bool = False) -> Tensor:
        """Return what is left of a tensor shaped like the parameter ``name``.

        Args:
            name: the parameter's full name.
            tensor: the parameter, its mask, or an optimizer's moment of it.
            fold: whether constants are added (to a parameter itself, not to its moments or masks).
        """
        if fold and name in self.folds:
            shift = self.folds[name].to(tensor.device)
            tensor = (tensor.detach().double() + shift).to(tensor.dtype)
        for axis, indices in enumerate(self.kept.get(name, ())):
            tensor = tensor.index_select(axis, indices.to(tensor.device))
        tensor = tensor.detach().clone()
        for axis, indices in enumerate(self.emptied.get(name, ())):
            tensor.index_fill_(axis, indices.to(tensor.device), 0)
        return tensor

    def ground(self, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return arguments whose states are zero where this plan takes them to be."""
        leaves, structure = pytree.tree_flatten(arguments)
        places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
        for place, units in self.grounded.items():
            state = leaves[places[place]].clone()
            state[..., units.to(state.device)] = 0
            leaves[places[place]] = state
        grounded: tuple[Any, ...] = pytree.tree_unflatten(leaves, structure)
        return grounded

    def adapt(self, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return arguments for the smaller module: recurrent states lose the units that went."""
        if self.wide_states:
            return arguments
        adapted: tuple[Any, ...] = _picked(arguments, self.states)
        return adapted

    def adapt_outputs(self, outputs: Any) -> Any:
        """Return the old module's outputs in the form of the smaller one's."""
        return _picked(outputs, self.returned)

    def comparable(self, outputs: Any) -> Any:
        """Return the smaller module's outputs without the places of units that went."""
        return _picked(outputs, self.returned) if self.wide_states else outputs


def apply_plan(module: nn.Module, plan: Plan) -> nn.Module:
    """Shrink a module in place, and return it.

    Parameters are replaced by new ones, shared ones by one that is shared again; masks that layers
    hold shrink with them; layers say their new sizes.
    """
    new: dict[int, Tensor] = {}
    for name, parameter in module.named_parameters():
        if name in plan.kept or name in plan.emptied or name in plan.folds:
            picked = plan.pick(name, parameter, fold=True)
            new[id(parameter)] = nn.Parameter(picked, requires_grad=parameter.requires_grad)
    for name, buffer in module.named_buffers():
        if name in plan.kept:
            new[id(buffer)] = plan.pick(name, buffer)
    for name, constants in plan.norms.items():
        like = next(module.parameters())
        shorten(module.get_submodule(name), constants.to(like.device, like.dtype))
    for prefix, layer in module.named_modules():
        masks = layer.masks if isinstance(layer, MaskedLayer) else {}
        for key in [key for key in masks if id(attrgetter(key)(layer)) in new]:
            masks[key] = plan.pick(f"{prefix}.{key}" if prefix else key, masks[key])
    put(module, new)
    _fit_states(module, plan)
    for prefix, layer in module.named_modules():
        tell_sizes(layer, plan.normalised.get(prefix), plan.heads.get(prefix))
    for name, code in plan.resized.items():
        resize_forward(module.get_submodule(name), code)
    return module


def _fit_states(module: nn.Module, plan: Plan) -> None:
    """Have recurrent layers find their units in states that are wider than they are."""
    for prefix, layer in module.named_modules():
        hidden = plan.kept.get(f"{prefix}.weight_hh_l0" if prefix else "weight_hh_l0")
        if hidden is None or not can_be_narrow(layer):
            continue
        # One that is narrow already may meet both: states of the width at first, and of its own.
        fewer = hidden[1].numel() < layer.hidden_size
        if fewer and (plan.wide_states or is_narrow(layer)):
            narrow(layer, hidden[1])


def _picked(tree: Any, kept: Mapping[int, Tensor]) -> Any:
    leaves, structure = pytree.tree_flatten(tree)
    place = 0
    for index, leaf in enumerate(leaves):
        if isinstance(leaf, Tensor):
            if place in kept:
                leaves[index] = leaf.index_select(-1, kept[place].to(leaf.device))
            place += 1
    return pytree.tree_unflatten(leaves, structure)
