"""What is frozen: parameters with ``requires_grad=False``. They are left alone, unless asked for.

What is frozen is read when a Pruner is made, when it gets a config and before each mask update,
never in between: SAC's, CQL's and TQC's modules freeze their critics for a moment within a forward.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

from torch import nn

from rayprune.pruning.checks import listed
from rayprune.pruning.config import PruningConfig
from rayprune.pruning.granularity import granularity_of
from rayprune.pruning.layers.masked import (
    own_parameters,
    prunable_name,
    prunable_parameters,
)
from rayprune.pruning.layers.parametrised import computed_parameters, originals, tensor_name
from rayprune.pruning.layers.prunable import PrunableLayer
from rayprune.pruning.pruner_part import PrunerPart

_WAY_OUT = "set `pruning.frozen` to 'prune'"

Frozen = Mapping[str, frozenset[str]]
"""Layer name -> those of its parameters that are frozen; layers without any are absent."""


class FrozenParameters(PrunerPart):
    """Which parameters were left alone for being frozen, where a state was saved."""

    key: ClassVar[str] = "frozen"
    changed = False
    """Whether others are, since a state was loaded: what is trained by now is due."""

    def state_dict(self) -> list[str]:
        """Return their full names."""
        return sorted(self.pruner.spared)

    def unpack(self, state: Iterable[str] | None) -> frozenset[str]:
        """Return the names."""
        return self.pruner.spared if state is None else frozenset(state)

    def restore(self, unpacked: frozenset[str]) -> None:
        """Note whether other parameters were frozen when the state was saved."""
        self.changed = unpacked != self.pruner.spared


def frozen_in(layers: Iterable[PrunableLayer]) -> dict[str, frozenset[str]]:
    """Return what is frozen at this moment, biases included.

    >>> from rayprune.pruning.layers.masked import MaskedLinear
    >>> layer = MaskedLinear(2, 2)
    >>> _ = layer.weight.requires_grad_(False)
    >>> frozen_in([PrunableLayer("pi", layer, "all")])
    {'pi': frozenset({'weight'})}
    """
    return {layer.name: names for layer in layers if (names := _frozen(layer.module))}


def wholly_frozen(layers: Iterable[nn.Module]) -> bool:
    """Whether nothing that could be pruned is trained; True where there is nothing at all."""
    return not any(w.requires_grad for layer in layers for w in prunable_parameters(layer).values())


def without_frozen(
    config: PruningConfig, layers: Sequence[PrunableLayer], frozen: Frozen
) -> tuple[PrunableLayer, ...]:
    """Return the layers without their frozen parameters; layers with no others are left out.

    A unit goes whole or not at all: where units are what is pruned, a layer with a frozen part of
    its units is left alone.
    """
    if config.frozen != "keep":
        return tuple(layers)
    left = [dataclasses.replace(x, spared=_spared(frozen.get(x.name, ()))) for x in layers]
    torn = granularity_of(config.granularity).torn
    return tuple(x for x in left if x.parameters and not torn(frozen.get(x.name, ())))


def frozen_faults(
    config: PruningConfig, subjects: Sequence[PrunableLayer], frozen: Frozen
) -> list[str]:
    """Return what can't be done because something is frozen.

    Args:
        config: sound in itself.
        subjects: the layers that its granularity can prune, frozen ones included.
        frozen: see `Frozen`.
    """
    if config.frozen != "keep" or not frozen:
        return []
    left = {layer.name for layer in without_frozen(config, subjects, frozen)}
    gone = [layer.name for layer in subjects if layer.name not in left]
    if subjects and not left:
        return [
            f"Everything that could be pruned is frozen (requires_grad=False): {listed(gone)}. "
            f"Unfreeze a layer, or {_WAY_OUT}."
        ]
    listed_ones = [] if isinstance(config.distribution, str) else list(config.distribution)
    faults = [
        f"`pruning.distribution.{name}` can't be given: {name!r} is frozen (requires_grad=False). "
        f"Leave it out, or {_WAY_OUT}."
        for name in listed_ones
        if name in gone
    ]
    groups = {layer.group for layer in subjects if layer.name in left}
    faults += [
        f"`pruning.groups.{group}` can't be given: all layers of group {group!r} are frozen "
        f"(requires_grad=False). Leave it out, or {_WAY_OUT}."
        for group in sorted({x.group for x in subjects} - groups)
        if group in config.groups
    ]
    return faults + granularity_of(config.granularity).frozen_faults(gone)


def _frozen(layer: nn.Module) -> frozenset[str]:
    own = {**own_parameters(layer), **dict(computed_parameters(layer))}
    names = {name for name, weight in own.items() if not weight.requires_grad}
    # Directions and magnitudes of a weight-normalised weight go together, or not at all.
    parts = {tensor_name(name) for name in names if tensor_name(name) != name}
    return frozenset(names | {n for n, _ in originals(layer) if tensor_name(n) in parts})


def _spared(names: Iterable[str]) -> frozenset[str]:
    return frozenset(name for name in names if prunable_name(name))
