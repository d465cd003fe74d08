"""`Prunables`: the layers that a config prunes of a module, as they are trained now."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from rayprune.errors import ConfigError
from rayprune.pruning.config import PruningConfig
from rayprune.pruning.granularity import Network, granularity_of
from rayprune.pruning.layers.attach import join
from rayprune.pruning.layers.parametrised import effective, lists_of
from rayprune.pruning.layers.prunable import PrunableLayer, protected_names
from rayprune.pruning.penalties.proximal_step import penalty_faults
from rayprune.pruning.reports import LayerCount
from rayprune.pruning.update.frozen import Frozen, frozen_faults, frozen_in, without_frozen
from rayprune.pruning.update.phases import Phase, phase_faults, phases_of


class Prunables:
    """Which layers are prunable, by the config, by what the caller exempts and what is frozen.

    Args:
        every: all maskable layers of the module.
        exempt: names of those that are never prunable.
        network: what a granularity may ask of it, under a config.
    """

    def __init__(
        self,
        every: Sequence[PrunableLayer],
        exempt: frozenset[str],
        network: Callable[[PruningConfig], Network],
    ) -> None:
        self.every = tuple(every)
        self._never = exempt
        self._network = network
        self._frozen: Frozen = {}
        self._flags: list[bool] = []
        self.fault = ""
        """Why nothing can be pruned with what is frozen now; empty if it can."""

    def take(self, config: PruningConfig) -> None:
        """Take a config, and look at what is frozen.

        Raises:
            ConfigError: it doesn't fit these layers; nothing was changed.
        """
        self._settle(config, frozen_in(self.every))

    def look(self) -> bool:
        """See what is frozen now; return whether that has changed what is pruned.

        Masks stay on what was frozen after it was pruned. What was unfrozen is pruned as far as the
        schedule has come, at once.
        """
        if self.config.frozen != "keep":
            return False
        # Asked at every update, where names would cost more than the rest.
        parts = [part for x in self.every for part in (x.module, *lists_of(x.module).values())]
        held = [p for part in parts for p in part._parameters.values()]
        flags = [p.requires_grad for p in held if p is not None]
        if flags == self._flags:
            return False
        self._flags, frozen = flags, frozen_in(self.every)
        if frozen == self._frozen:
            self.fault = ""
            return False
        try:
            self._settle(self.config, frozen)
        except ConfigError as error:
            # Nothing that a config can mend in mid-run: training goes on, with the masks of now.
            self.fault = str(error)
            return False
        return True

    def _settle(self, config: PruningConfig, frozen: Frozen) -> None:
        candidates = [x for x in self.every if x.name not in self._never]
        granularity, network = granularity_of(config.granularity), self._network(config)
        could = granularity.layers_of(candidates, network)
        faults = frozen_faults(config, could, frozen)
        if faults:
            raise ConfigError(faults)
        layers, heads = without_frozen(config, could, frozen), frozenset(network.heads)
        exempt = frozenset(layer.name for layer in self.every) - {layer.name for layer in layers}
        protected = protected_names(layers, config.protect)
        free = [layer for layer in layers if layer.name not in protected]
        faults = granularity.layer_faults(free, protected, network.tied)
        faults += penalty_faults(config.penalty, free)
        phases = phases_of(config, layers, heads)
        faults += phase_faults(phases, exempt, heads)
        if faults:
            raise ConfigError(faults)
        self.config = config
        """The config in force."""
        self.layers: tuple[PrunableLayer, ...] = layers
        """The layers to be pruned, protected ones included."""
        self.phases: list[Phase] = phases
        """What a mask update decides in turn."""
        self._exempt, self._frozen, self.fault = exempt, frozen, ""
        self._left_alone = {x.name for x in could} - {x.name for x in layers}

    @property
    def spared(self) -> frozenset[str]:
        """The full names of parameters that are left alone for being frozen."""
        kept = self._frozen if self.config.frozen == "keep" else {}
        return frozenset(join(name, key) for name, keys in kept.items() for key in keys)

    @property
    def emptied(self) -> list[str]:
        """The layers of which no prunable weight is left, where that cuts off what comes after."""
        if self.config.chosen.granularity.becomes_identity:
            return []
        return [layer.name for layer in self.layers if layer.pruned == layer.total]

    def counts(self) -> list[LayerCount]:
        """Count the weights of every maskable layer, exempt ones included."""
        protected = protected_names(self.layers, self.config.protect)
        # Of a layer that is frozen in part, what is prunable counts.
        prunable = {layer.name: layer for layer in self.layers}
        layers = [prunable.get(layer.name, layer) for layer in self.every]
        return [self._count(layer, layer.name in protected) for layer in layers]

    def _count(self, layer: PrunableLayer, protected: bool) -> LayerCount:
        weights = layer.named
        return LayerCount(
            name=layer.name,
            parameters=tuple(weights),
            shape=layer.dims,
            total=layer.total,
            nonzero=sum(
                int(torch.count_nonzero(effective(layer.module, name))) for name in layer.parameters
            ),
            sparsity=layer.pruned / layer.total,
            protected=protected,
            group=layer.group,
            exempt=layer.name in self._exempt,
            frozen=layer.name in self._left_alone,
        )
