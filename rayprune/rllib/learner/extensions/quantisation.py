"""Quantisation-aware training on a Learner: when its policies begin to round, and in what ranges.

EnvRunners follow at the next sync: what layers are told comes with their weights (ADR 0050).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from rayprune.errors import ConfigError
from rayprune.pruning.pruner import Pruner
from rayprune.pruning.quantisation.config import QuantisationConfig
from rayprune.pruning.quantisation.layers import BUFFERS, FROZEN, OBSERVING, OFF, QuantisedLayer
from rayprune.pruning.quantisation.quantiser import Quantiser
from rayprune.rllib.algorithms.target_networks import target_networks, target_pairs
from rayprune.rllib.learner.extension import Extension, LearnerView
from rayprune.rllib.modules.quantisable import Quantisable, acts
from rayprune.rllib.settings.keys import QUANTISE_KEY


class QuantisationAwareTraining(Extension):
    """Tells the layers of a Learner's policies how to round; target networks do as their sources.

    Of modules that are pruned, be it to a sparsity of 0. What layers are told, and the ranges, are
    part of the weights, so that this has no state of its own.
    """

    def __init__(self, view: LearnerView) -> None:
        super().__init__(view)
        self._quantisers: dict[str, Quantiser] = {}
        self._known: tuple[Mapping[str, Any], QuantisationConfig] | None = None

    def attach(self, module_id: str, pruner: Pruner) -> None:
        """Take a module in.

        Raises:
            ConfigError: its class has no layers that round, or some of them can't.
        """
        config = self._config()
        if config is None:
            return
        module = self._view.module(module_id)
        if not isinstance(module, Quantisable):
            raise ConfigError(
                f"`quantise` needs modules whose layers can round, but that of {module_id!r} is a "
                f"plain {type(module).__name__}: its spec was set after `prune(config, ...)`. Call "
                "`prune` last, or leave `quantise` out."
            )
        self._quantisers[module_id] = Quantiser(
            module,
            config,
            layers=lambda name: acts(module, name),
            exclude=target_networks(module),
        )
        self.after_masks(module_id, pruner)

    def detach(self, module_id: str) -> None:
        """Let a module go."""
        self._quantisers.pop(module_id, None)

    def after_masks(self, module_id: str, pruner: Pruner) -> None:
        """Do what the clock asks for, at the end of an update: the next samples come of it."""
        config, quantiser = self._config(), self._quantisers.get(module_id)
        if config is None or quantiser is None:
            return
        quantiser.config = config
        if quantiser.update(self._view.clock):
            learner: Any = self._view.learner
            learner.distrust_recordings()
        if quantiser.phase_at(self._view.clock) != OFF:
            _tell_targets(self._view.module(module_id))

    def phase(self, module_id: str) -> int:
        """Return the phase that a module is in now; `OFF` for one that isn't quantised."""
        quantiser = self._quantisers.get(module_id)
        layers = [] if quantiser is None else [*quantiser.layers.values()]
        return max((layer.precision.phase for layer in layers), default=OFF)

    def _config(self) -> QuantisationConfig | None:
        held = self._view.learner.config.learner_config_dict.get(QUANTISE_KEY)
        if held is None:
            return None
        if self._known is None or self._known[0] != held:
            self._known = dict(held), QuantisationConfig.from_dict(held)
        return self._known[1]


@torch.no_grad()
def _tell_targets(module: Any) -> None:
    """Have target networks round as their sources do, and observe nothing themselves."""
    for source, target in target_pairs(module):
        copies = dict(target.named_modules())
        for name, layer in source.named_modules():
            if not isinstance(layer, QuantisedLayer):
                continue
            copied: Any = copies[name]
            for buffer in BUFFERS:
                getattr(copied, buffer).copy_(getattr(layer, buffer))
            told = layer.precision
            if told.phase == OBSERVING:
                copied.tell(FROZEN, told.weights, told.activations or None)
