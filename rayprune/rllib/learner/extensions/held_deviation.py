"""Remedy ``hold_deviation`` on a Learner: log-stds stay at what they were at the first cut."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from ray.rllib.utils.numpy import convert_to_numpy
from torch import Tensor

from rayprune.pruning.pruner import Pruner
from rayprune.pruning.remedies.hold_deviation import KEY
from rayprune.pruning.reports import MaskChange
from rayprune.rllib.learner.deviations import Deviation, deviation_of
from rayprune.rllib.learner.extension import Extension, LearnerView


class HeldDeviation(Extension):
    """Lifts what an update has taken off a module's log-stds, from the first cut to the last."""

    key = "held_deviation"

    def __init__(self, view: LearnerView) -> None:
        super().__init__(view)
        self._floors: dict[str, Tensor] = {}
        self._batch: Mapping[str, Any] = {}

    def detach(self, module_id: str) -> None:
        """Let a module go."""
        self._floors.pop(module_id, None)

    def on_batch(self, batch: Mapping[str, Any]) -> None:
        """Keep a reference to an update's last minibatch."""
        self._batch = batch

    def on_barrier(self) -> None:
        """Let it go: a checkpoint doesn't hold it."""
        self._batch = {}

    def after_mask_update(self, module_id: str, pruner: Pruner, change: MaskChange) -> None:
        """Note the log-stds at the first cut, as they are after it."""
        if not change.pruned or module_id in self._floors:
            return
        deviation = self._deviation(module_id, pruner)
        level = None if deviation is None else deviation.level(self._batch.get(module_id, {}))
        if level is not None:
            self._floors[module_id] = level

    def after_masks(self, module_id: str, pruner: Pruner) -> None:
        """Lift log-stds that have fallen below what was noted, while masks may change."""
        floor = self._floors.get(module_id)
        if floor is None or pruner.finished(self._view.clock):
            return
        deviation = self._deviation(module_id, pruner)
        if deviation is not None:
            deviation.hold(floor, self._batch.get(module_id, {}))

    def _deviation(self, module_id: str, pruner: Pruner) -> Deviation | None:
        """Return what is to be held; None if nothing is."""
        if not pruner.config.remedies.get(KEY):
            return None
        return deviation_of(self._view.module(module_id), pruner.heads)

    def get_state(self) -> dict[str, Any]:
        """Return what was noted, by module id."""
        return {mid: convert_to_numpy(floor) for mid, floor in self._floors.items()}

    def set_state(self, state: Mapping[str, Any] | None) -> None:
        """Take over what `get_state` returned."""
        self._floors = {mid: torch.as_tensor(floor) for mid, floor in (state or {}).items()}
