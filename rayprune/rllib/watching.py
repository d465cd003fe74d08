"""Plasticity on a Learner: which layers are watched, and when a window opens and closes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from rayprune.pruning.plasticity import Figures, Plasticity
from rayprune.pruning.pruner import Pruner
from rayprune.rllib.groups import output_heads


class Watch:
    """The plasticity of every module of one Learner; reads, and changes nothing.

    Each Learner of a group measures its own minibatches; the first one's figures are reported.
    """

    def __init__(self, config: AlgorithmConfig) -> None:
        # A compiled update would be compiled anew whenever hooks come and go.
        self._off = bool(getattr(config, "torch_compile_learner", False))
        self._modules: dict[str, tuple[Pruner, Plasticity]] = {}

    def attach(self, module_id: str, pruner: Pruner) -> None:
        """Watch a module."""
        layers = {layer.name: layer.parameters for layer in pruner.layer_counts()}
        # Of outputs (logits, values) it makes no sense to ask whether they are dormant.
        hidden = [name for name in layers if name not in output_heads(layers)]
        self._modules[module_id] = pruner, Plasticity(pruner.module, layers, hidden)

    def detach(self, module_id: str) -> None:
        """Watch a module no longer."""
        held = self._modules.pop(module_id, None)
        if held is not None:
            held[1].drop()

    def drop(self, module_id: str) -> None:
        """Give up a module's open window: its layers are about to change."""
        self._modules[module_id][1].drop()

    def begin_step(self, updates: int) -> None:
        """Open the windows that begin with the next optimizer step, `updates` being done."""
        for pruner, plasticity in self._modules.values():
            every = pruner.config.plasticity_every
            if every is not None and not self._off:
                plasticity.begin_step(updates, every)

    def end_step(self, gradients: Mapping[torch.nn.Parameter, Any]) -> None:
        """Take one minibatch's gradients into the windows that are open."""
        for pruner, plasticity in self._modules.values():
            if plasticity.is_open:
                plasticity.end_step(
                    {
                        name: gradients[weight]
                        for name, weight in pruner.parameters.items()
                        if gradients.get(weight) is not None
                    }
                )

    def restart(self, updates: int) -> None:
        """Give up open windows: a checkpoint can't hold half of one, nor can a restored Learner.

        Done at every checkpoint, interrupted or not, so that both go on alike.
        """
        for _, plasticity in self._modules.values():
            plasticity.drop()
        self.begin_step(updates)

    def take(self) -> dict[str, Figures]:
        """Return the figures of windows finished since the last call, by module id."""
        taken = {module_id: held.take() for module_id, (_, held) in self._modules.items()}
        return {module_id: figures for module_id, figures in taken.items() if figures is not None}
