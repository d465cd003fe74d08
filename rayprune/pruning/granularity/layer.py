"""Granularity ``layer``: layer pruning, of whole residual blocks and whole layers of one width.

A residual block says so by a class attribute ``residual_branch``, the names of the children whose
output is added to the block's input. With all their weights zero, and no biases, the block is
exactly the identity.

A Linear with as many inputs as outputs, or a convolution that keeps channels and size, goes by
becoming the identity, with a zero bias. That is a network of the same class, which needs no wrapper
to be saved, synchronised, exported or read by plain RLlib; its n ones are counted as weights that
are left. What follows it stays: after a
ReLU a second one changes nothing, so that layer and activation can be dropped together; a second
tanh does change its input, and stays as an activation without weights.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rayprune.errors import ConfigError
from rayprune.pruning.granularity.base import POOLINGS, Granularity, Named, Network, Part
from rayprune.pruning.layers.attach import join
from rayprune.pruning.layers.identity import can_be_identity, identity_weight
from rayprune.pruning.layers.masked import MaskedLayer
from rayprune.pruning.layers.parametrised import lists_of
from rayprune.pruning.layers.prunable import PrunableLayer, Unit


@dataclass(frozen=True, slots=True)
class LayerPart(Part):
    """One unit: the branch of a residual block, or a layer whose output is shaped like its input.

    A branch goes by its weights being zero. A layer that goes becomes the identity: of its mask
    stays what `identity_weight` says, and `rayprune.pruning.layers.identity` holds ones.

    >>> part = LayerPart({"0.weight": torch.Size([2, 2])}, unit="0", identity=True)
    >>> dict(part.expand(torch.tensor([False]), {}))
    {'0.weight': tensor([[ True, False],
            [False,  True]])}
    """

    unit: str
    identity: bool

    @property
    def count(self) -> int:
        """One: the unit."""
        return 1

    def pool(self, scores: Named, pooling: str) -> Tensor:
        """Return the score of all its weights together, ``(1,)``."""
        return POOLINGS[pooling](torch.cat([scores[n].reshape(1, -1) for n in self.shapes], dim=1))

    def expand(self, keep: Tensor, scores: Named) -> Iterator[tuple[str, Tensor]]:
        """Yield masks of everything, or of what a unit that is gone leaves."""
        for name, shape in self.shapes.items():
            if bool(keep):
                yield name, torch.ones(shape, dtype=torch.bool, device=keep.device)
            elif self.identity:
                yield name, identity_weight(shape).to(keep.device)
            else:
                yield name, torch.zeros(shape, dtype=torch.bool, device=keep.device)

    def live(self, free: Mapping[str, Tensor | None]) -> Tensor | None:
        """Return whether more is left of the unit than its removal leaves."""
        known = next((mask for mask in free.values() if mask is not None), None)
        if known is None:
            return None
        kept = dict(self.expand(torch.zeros(1, dtype=torch.bool, device=known.device), {}))
        more = [mask is None or bool((mask & ~kept[name]).any()) for name, mask in free.items()]
        return torch.tensor([any(more)], device=known.device)


class LayerGranularity(Granularity):
    """Whole residual blocks, and Linear layers of one width, which become the identity."""

    __slots__ = ()

    spans_layers = True
    becomes_identity = True

    def parts(self, layers: Iterable[PrunableLayer]) -> tuple[Part, ...]:
        """Return the units of which all layers are there: a protected one keeps its whole block."""
        found: dict[str, list[PrunableLayer]] = {}
        units: dict[str, Unit] = {}
        for layer in layers:
            if layer.unit is not None:
                units[layer.unit.name] = layer.unit
                found.setdefault(layer.unit.name, []).append(layer)
        return tuple(
            LayerPart(
                {x.full_name(key): w.shape for x in members for key, w in x.parameters.items()},
                unit=name,
                identity=units[name].identity,
            )
            for name, members in found.items()
            if len(members) == len(units[name].layers)
        )

    def count(self, layers: Iterable[PrunableLayer]) -> int:
        """Count the units."""
        return sum(part.count for part in self.parts(layers))

    def layers_of(
        self, layers: Sequence[PrunableLayer], network: Network
    ) -> tuple[PrunableLayer, ...]:
        """Return the layers that are in a unit, each with it."""
        if network.by_return:
            # Without its critic a policy acts as before; what it would learn, no return tells.
            layers = [layer for layer in layers if layer.group != "value"]
        barred = [*network.heads, *network.tied]
        units = find_units(network.module, {x.name: x.module for x in layers}, barred)
        by_layer = {name: unit for unit in units for name in unit.layers}
        if not by_layer:
            raise ConfigError(
                "`granularity` can't be 'layer': the network has no residual block and no layer "
                "whose output is shaped like its input. Choose PrunableResidualCNN or hidden "
                "layers of one width, or another granularity."
            )
        return tuple(
            dataclasses.replace(layer, unit=by_layer[layer.name])
            for layer in layers
            if layer.name in by_layer
        )

    def torn(self, frozen: Iterable[str]) -> bool:
        """Return whether anything is frozen: a bias is zeroed, too."""
        return any(True for _ in frozen)


def find_units(
    module: nn.Module, layers: Mapping[str, MaskedLayer], barred: Collection[str]
) -> list[Unit]:
    """Return the units of a module.

    Args:
        module: holds the layers.
        layers: those that can be pruned, by name.
        barred: names of layers that can't become the identity: output heads, tied ones.

    Raises:
        ConfigError: a residual branch has a bias.
    """
    units = list(_blocks(module, layers))
    inside = {name for unit in units for name in unit.layers}
    units += [
        Unit(name, (name,), identity=True)
        for name, layer in layers.items()
        if can_be_identity(layer) and name not in inside and name not in barred
    ]
    return units


def without(weights: Mapping[str, Any], unit: Unit) -> dict[str, Any]:
    """Return a module's weights as they are without a unit.

    Args:
        weights: NumPy arrays or CPU tensors by full name.
        unit: of that module.

    Returns:
        The same mapping, with new arrays for the unit's parameters.
    """
    changed = dict(weights)
    for layer in unit.layers:
        for name, value in weights.items():
            if name == join(layer, "weight") or name.startswith(f"{layer}.weight_"):
                held = np.asarray(value)
                changed[name] = _gone(held, unit)
            elif name == join(layer, "bias"):
                changed[name] = np.zeros_like(np.asarray(value))
    return changed


def _gone(weight: np.ndarray[Any, Any], unit: Unit) -> np.ndarray[Any, Any]:
    if unit.identity:
        return identity_weight(weight.shape).numpy().astype(weight.dtype)
    return np.zeros_like(weight)


def _blocks(module: nn.Module, layers: Mapping[str, MaskedLayer]) -> Iterable[Unit]:
    for name, block in module.named_modules():
        branch = getattr(type(block), "residual_branch", None)
        if branch is None:
            continue
        roots = [join(name, child) for child in branch]
        inside = [
            layer
            for layer in layers
            if any(layer == root or layer.startswith(f"{root}.") for root in roots)
        ]
        biased = [layer for layer in inside if getattr(layers[layer], "bias", None) is not None]
        if biased:
            raise ConfigError(
                f"`granularity` 'layer' can't remove block {name!r}: {biased[0]!r} in its "
                "`residual_branch` has a bias, so zero weights don't make it the identity. Build "
                "it with bias=False, or list it under `protect`."
            )
        computed = [layer for layer in inside if lists_of(layers[layer])]
        if computed:
            raise ConfigError(
                f"`granularity` 'layer' can't remove block {name!r}: torch computes the weight of "
                f"{computed[0]!r} in its `residual_branch` from other tensors. List it under "
                "`protect`, or choose granularity 'neuron'."
            )
        if inside:
            yield Unit(name, tuple(inside), identity=False)
