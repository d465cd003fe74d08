"""Plasticity on a Learner: which layers are watched, and when a window opens and closes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

import torch

from rayprune.pruning.measures.plasticity import Figures, Plasticity
from rayprune.pruning.pruner import Pruner
from rayprune.rllib.learner.extension import Extension, LearnerView

logger = logging.getLogger(__name__)

NAME: Final = "plasticity"
"""What warnings call it."""


class PlasticityWindows(Extension):
    """The plasticity of every module of one Learner; reads, and changes nothing.

    Each Learner of a group measures its own minibatches; the first one's figures are reported. A
    module whose measuring fails is watched no longer, and training goes on.
    """

    def __init__(self, view: LearnerView) -> None:
        super().__init__(view)
        # A compiled update would be compiled anew whenever hooks come and go.
        self._off = bool(getattr(view.learner.config, "torch_compile_learner", False))
        self._modules: dict[str, tuple[Pruner, Plasticity]] = {}
        self._told: set[tuple[str, str]] = set()

    def attach(self, module_id: str, pruner: Pruner) -> None:
        """Watch a module."""
        self._try(module_id, lambda: self._attach(module_id, pruner))
        self.after_step()

    def detach(self, module_id: str) -> None:
        """Watch a module no longer."""
        held = self._modules.pop(module_id, None)
        if held is not None:
            held[1].drop()

    def before_resize(self, module_id: str) -> None:
        """Give up a module's open window: its layers are about to change."""
        if module_id in self._modules:
            self._modules[module_id][1].drop()

    def after_step(self) -> None:
        """Open the windows that begin with the next optimizer step."""
        if self._off:
            return
        for module_id, (pruner, plasticity) in list(self._modules.items()):
            every = pruner.config.plasticity_every
            if every is not None:
                self._try(module_id, partial(plasticity.begin_step, self._view.updates, every))

    def pass_over(self) -> None:
        """Forget the forwards since the last step: they were not of a minibatch."""
        for _, plasticity in self._modules.values():
            plasticity.pass_over()

    def on_masked_gradients(self, gradients: Mapping[torch.nn.Parameter, Any]) -> None:
        """Take one minibatch's gradients into the windows that are open.

        Args:
            gradients: by parameter; None, or absent, for what this minibatch doesn't train.
        """
        for module_id, (_, plasticity) in list(self._modules.items()):
            if plasticity.is_open:
                self._try(module_id, partial(_end_step, plasticity, gradients))
                self._tell(module_id, plasticity.unhooked)

    def on_barrier(self) -> None:
        """Give up open windows: a checkpoint can't hold half of one, nor can a restored Learner.

        Done at every checkpoint, interrupted or not, so that both go on alike.
        """
        for _, plasticity in self._modules.values():
            plasticity.drop()
        self.after_step()

    after_restore = on_barrier

    def take(self) -> dict[str, Figures]:
        """Return the figures of windows finished since the last call, by module id."""
        taken = {module_id: held.take() for module_id, (_, held) in self._modules.items()}
        return {module_id: figures for module_id, figures in taken.items() if figures is not None}

    def _attach(self, module_id: str, pruner: Pruner) -> None:
        layers = {layer.name: layer.parameters for layer in pruner.layer_counts()}
        # Of outputs (logits, values) it makes no sense to ask whether they are dormant.
        hidden = [name for name in layers if name not in pruner.heads]
        self._modules[module_id] = pruner, Plasticity(pruner.module, layers, hidden)
        if self._off and pruner.config.plasticity_every is not None:
            self._tell(module_id, "`torch_compile_learner` compiles the whole update")

    def _try(self, module_id: str, measure: Any) -> None:
        self._view.diagnostics.take(NAME, module_id, measure, None)
        if self._view.diagnostics.is_off(NAME, module_id):
            self.detach(module_id)

    def _tell(self, module_id: str, why: str) -> None:
        if why and (module_id, why) not in self._told:
            self._told.add((module_id, why))
            what = "plasticity" if self._off else "dormant units and effective ranks"
            logger.warning(
                "No %s of %r where hooks would have to be: %s. Training goes on as it would "
                "without them.",
                what,
                module_id,
                why,
            )


def _end_step(plasticity: Plasticity, gradients: Mapping[torch.nn.Parameter, Any]) -> None:
    plasticity.end_step({name: gradients.get(w) for name, w in plasticity.parameters.items()})
