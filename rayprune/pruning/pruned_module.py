"""`PrunedModule`: a module with masks, and all that is made as sparse as it is."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from rayprune.errors import InputError
from rayprune.pruning.arguments import (
    check_types,
    checked_exclusions,
    clock_of,
    matching,
)
from rayprune.pruning.config import PruningConfig
from rayprune.pruning.granularity import Network
from rayprune.pruning.granularity.sensors import Sensors
from rayprune.pruning.layers.attach import (
    Exclusions,
    join,
    make_maskable,
    maskable_layers,
    tied_layers,
)
from rayprune.pruning.layers.identity import IdentityLayers
from rayprune.pruning.layers.kinds import axes_of
from rayprune.pruning.layers.masked import MASKABLE, MaskedLayer, prunable_parameters
from rayprune.pruning.layers.original_shapes import Kept, OriginalShapes
from rayprune.pruning.layers.prunable import PrunableLayer
from rayprune.pruning.masks.store import MaskStore, all_true
from rayprune.pruning.naming import by_parameter
from rayprune.pruning.pruner_part import Parts, Pick, PrunerPart
from rayprune.pruning.reports import LayerCount, ScheduleProgress
from rayprune.pruning.update.prunables import Prunables

Gradients = Mapping[nn.Parameter, Tensor | None] | Mapping[str, Tensor | None]
"""Gradients by parameter, or by its full name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskableModule:
    """A module's maskable layers, or some of them, and what is known of them."""

    module: nn.Module
    layers: Mapping[str, MaskedLayer]
    """By name, in the module's order."""
    every: Mapping[str, MaskedLayer]
    """All of the module's."""
    groups: Mapping[str, str]
    """Layer name -> group."""
    exempt: frozenset[str]
    """Names of layers that are never prunable."""
    heads: frozenset[str]
    """Names of layers of which no unit can go."""
    tied: frozenset[str]
    """Names of layers that share a weight with another."""
    sensors: Callable[[], Sensors] | None
    exclude: Exclusions

    @classmethod
    def of(
        cls,
        module: nn.Module,
        *,
        groups: Callable[[str], str] | None,
        exempt: Iterable[str],
        heads: Iterable[str],
        sensors: Callable[[], Sensors] | None,
        exclude: Exclusions,
    ) -> MaskableModule:
        """Make a module maskable; see `rayprune.pruning.pruner.Pruner` for the arguments.

        Raises:
            InputError: there is nothing to prune, or a pattern matches nothing.
        """
        exclude = checked_exclusions(module, exclude)
        make_maskable(module, exclude=exclude)
        found = maskable_layers(module, exclude=exclude)
        if not found:
            kinds = ", ".join(kind.__name__ for kind in MASKABLE)
            raise InputError(f"The module has no layer to prune: none with weights is a {kinds}.")
        check_types(found)
        return cls(
            module=module,
            layers=found,
            every=found,
            groups={name: groups(name) if groups else "all" for name in found},
            exempt=matching("exempt", exempt, list(found)),
            heads=matching("heads", heads, list(found)),
            tied=tied_layers(module, exclude=exclude),
            sensors=sensors,
            exclude=exclude,
        )

    def only(self, names: Collection[str]) -> MaskableModule:
        """Return what is left when all but some layers are passed over."""
        layers = {name: layer for name, layer in self.layers.items() if name in names}
        return replace(self, layers=layers)

    def network(self, config: PruningConfig) -> Network:
        """Return what a granularity may ask of it, under a config."""
        return Network(
            module=self.module,
            heads=self.heads & self.layers.keys(),
            tied=self.tied,
            sensors=self.sensors,
            by_return=config.chosen.criterion.needs_returns,
        )


class PrunedModule:
    """A module with its masks, under one config: what they are of, and what they are applied to.

    Args:
        subject: the module, and those of its layers that are under the config.
        config: what to prune of them.
        parts: the kinds of its parts, in the order in which they are called; `IdentityLayers` and
            `OriginalShapes` must be among them.
    """

    def __init__(
        self, subject: MaskableModule, config: PruningConfig, parts: Iterable[type[PrunerPart]]
    ) -> None:
        self.module, self._every = subject.module, subject.every
        self._parts = Parts(parts)
        self.origins = self._parts[OriginalShapes]
        """What the parameters were before compaction in mid-training."""
        self.bypasses = self._parts[IdentityLayers]
        """The layers that have become the identity."""
        layers = [
            PrunableLayer(name, layer, subject.groups[name], origins=self.origins)
            for name, layer in subject.layers.items()
        ]
        self.heads = subject.heads & subject.layers.keys()
        """The names of the layers of which no unit can go."""
        self._prunables = Prunables(layers, subject.exempt, subject.network)
        self._store = MaskStore(layers)
        self._progress = ScheduleProgress()
        self.config = config

    @property
    def config(self) -> PruningConfig:
        """The config, read at every use; a new one is checked against the module."""
        return self._prunables.config

    @config.setter
    def config(self, config: PruningConfig) -> None:
        self._prunables.take(config)
        self._store.settle(self._prunables.layers, self._prunables.spared)

    @property
    def masks(self) -> dict[str, Tensor]:
        """The masks by full parameter name; see `rayprune.Pruner.masks`."""
        whole = {name: all_true(weight) for name, weight in self.parameters.items()}
        return whole | self.held_masks

    @property
    def held_masks(self) -> dict[str, Tensor]:
        """Those of `masks` that pruning has made."""
        return self._store.masks

    @property
    def written_masks(self) -> dict[str, Tensor]:
        """The masks as they are written into parameters by full name; see `MaskStore.written`."""
        return self._store.written

    @property
    def layers(self) -> dict[str, MaskedLayer]:
        """Every maskable layer by name, exempt ones included, in the module's order."""
        return {layer.name: layer.module for layer in self._prunables.every}

    @property
    def prunable(self) -> tuple[PrunableLayer, ...]:
        """The layers to be pruned, protected ones included."""
        return self._prunables.layers

    @property
    def spared(self) -> frozenset[str]:
        """The full names of parameters that are left alone for being frozen."""
        return self._store.spared

    @property
    def weights(self) -> dict[str, nn.Parameter]:
        """Every parameter that may ever hold a mask, by full name."""
        return self._store.weights

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """The prunable parameters by full name, protected ones included."""
        return {name: weight for layer in self.prunable for name, weight in layer.named.items()}

    @property
    def mask_updates(self) -> int:
        """How often the masks were decided on so far."""
        return self._progress.updates

    @property
    def masked_parameters(self) -> dict[str, nn.Parameter]:
        """All parameters that pruning zeroes by full name: biases of silent hidden units too."""
        weights = self._store.weights
        held = {name: weights[name] for name in self.held_masks}  # what was frozen since, too
        silenced = {name: bias for name, (bias, _) in self._store.silenced.items()}
        return self.parameters | held | silenced

    @torch.no_grad()
    def mask_gradients(self, gradients: Gradients) -> None:
        """Zero the gradients of pruned weights, in place.

        Args:
            gradients: by parameter or its full name; parameters without masks, those of other
                modules, and None are left alone.

        Raises:
            InputError: a name is not the module's, or a gradient not shaped like its parameter.
        """
        gradients = by_parameter("gradients", gradients, self.module)
        self._store.mask_gradients(gradients)
        for write in self._parts.on_masked_gradients:
            write(gradients)

    @torch.no_grad()
    def mask_weights(self) -> None:
        """Zero the pruned weights, in place."""
        self._store.mask_weights()
        for write in self._parts.on_masked_weights:
            write()

    @property
    def wants_rates(self) -> bool:
        """Whether `penalise` does anything, so that learning rates must be looked up."""
        return any(part.wants_rates for part in self._parts.stepping)

    @torch.no_grad()
    def penalise(self, clock: float, rates: Mapping[nn.Parameter, float]) -> None:
        """Let parts write weights after an optimizer step: the penalty's proximal step, if any.

        Args:
            clock: from the schedule's end on nothing shrinks, so that what is left is unbiased.
            rates: the learning rate by parameter; one that nobody steps doesn't shrink.
        """
        for part in self._parts.stepping:
            if part.wants_rates:
                part.after_step(clock, rates)

    @torch.no_grad()
    def mask_tensors(self, tensors: Mapping[str, Tensor] | Mapping[nn.Parameter, Tensor]) -> None:
        """Zero the pruned entries of other tensors, in place.

        Args:
            tensors: by full parameter name or by parameter, shaped like the parameters: moments,
                target weights. Parameters without a mask are left alone.

        Raises:
            InputError: a name is not the module's, or a tensor not shaped like its parameter;
                nothing was changed.
        """
        self._store.mask_tensors(by_parameter("tensors", tensors, self.module))

    @torch.no_grad()
    def mask_along(self, tensors: Callable[[nn.Parameter], Iterable[Tensor]]) -> None:
        """Zero the pruned entries of what belongs to each weight, in place.

        Args:
            tensors: gives a weight's moments, or its copies in target networks, shaped like it.
        """
        self._store.mask_along(tensors)

    @torch.no_grad()
    def violations(self) -> dict[str, int]:
        """Return how many pruned weights are not zero, by full parameter name; empty if right."""
        return self._store.violations()

    def sparsity(self, group: str | None = None) -> float:
        """Return the fraction of the prunable weights that is masked, and really zero.

        A masked weight that an optimizer has moved, where `mask_weights` was not called after its
        step, doesn't count. That takes a pass over the masked weights; `masked` takes none.

        Args:
            group: of this group only; None for all.

        Raises:
            InputError: there is no such group.
        """
        return self._store.sparsity(group)

    def masked(self, group: str | None = None) -> float:
        """Return the fraction of the prunable weights that is masked, whatever they are now.

        Args:
            group: as for `sparsity`.

        Raises:
            InputError: there is no such group.
        """
        return self._store.masked(group)

    @property
    def emptied(self) -> list[str]:
        """The layers of which no prunable weight is left: what comes after them sees constants.

        Not so where layers are what is pruned: those become the identity.
        """
        return self._prunables.emptied

    def layer_counts(self) -> list[LayerCount]:
        """Count the weights of every maskable layer, exempt ones included."""
        return self._prunables.counts()

    def compaction_due(self, step: float, updates: float | None = None) -> bool:
        """Return whether ``compact_every`` wants dead units looked for now."""
        every = self.config.compact_every
        return self.origins.due(clock_of(step, updates), every, self._progress.updates)

    def compacted(
        self,
        step: float,
        before: Mapping[str, tuple[int, ...]],
        kept: Mapping[str, Kept],
        pick: Pick,
    ) -> None:
        """Follow a compaction of the module; see `rayprune.Pruner.compacted`."""
        self.origins.note(step, self.config.compact_every or 1, self._progress.updates)
        if kept:
            whole_rows = self.config.chosen.granularity.whole_rows
            axes = {
                join(name, key): axes_of(layer)
                for name, layer in self._every.items()
                for key in prunable_parameters(layer)
            }
            self.origins.narrow(before, kept, by_unit=whole_rows, axes=axes)
            self._store.forget()
            self._store.fading.pick(pick)
            for follow in self._parts.on_compaction:
                follow(pick)
