"""Watches whether pruning has cut a module off from its observation, after changes of its masks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule

from rayprune.pruning.pruner import Pruner
from rayprune.rllib.learner.extension import Extension, LearnerView
from rayprune.rllib.modules.cut_off import Batch, constant_outputs


class CutOff(Extension):
    """Runs modules on the last minibatch; reads, and changes nothing.

    A module that can't be run this way is watched no longer.
    """

    def __init__(self, view: LearnerView) -> None:
        super().__init__(view)
        self._batches: dict[str, Batch] = {}
        self._changed: set[str] = set()
        self._constant: dict[str, dict[str, str | None]] = {}

    def on_batch(self, batch: Mapping[str, Any]) -> None:
        """Keep a reference to a minibatch until the update ends."""
        self._batches.update({mid: batch[mid] for mid in self._view.pruners if mid in batch})

    def on_spread(self, module_id: str) -> None:
        """Remember that a module has changed."""
        self._changed.add(module_id)

    def detach(self, module_id: str) -> None:
        """Let a module go."""
        self._batches.pop(module_id, None)
        self._constant.pop(module_id, None)
        self._changed.discard(module_id)

    def after_masks(self, module_id: str, pruner: Pruner) -> None:
        """Run a module, if it has changed or was cut off when it last was."""
        batch = self._batches.pop(module_id, None)
        if batch is None or not (module_id in self._changed or self._constant.get(module_id)):
            return
        self._changed.discard(module_id)
        parent: Any = self._view.learner.module
        own = None if type(parent) is MultiRLModule else parent
        self._constant[module_id] = self._view.diagnostics.take(
            "cut off", module_id, lambda: constant_outputs(batch, pruner, own), {}
        )

    def report(self, module_id: str, pruner: Pruner) -> dict[str, Any] | None:
        """Return what is cut off now, None if nothing is.

        Returns:
            ``{"empty_layers": [name], "constant_outputs": {output: layer}}``: the layers without a
            weight, and the outputs that don't depend on the observation, each with the layer that
            it ends in (None where it can't be told).
        """
        found = {
            "empty_layers": pruner.emptied,
            "constant_outputs": dict(self._constant.get(module_id, {})),
        }
        return found if any(found.values()) else None
