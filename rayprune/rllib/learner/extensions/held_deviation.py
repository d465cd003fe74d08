"""Remedy ``hold_deviation`` on a Learner: log-stds stay where they were at the first cut, or above.

It holds log-stds that are parameters, those of a policy with `free_log_std`: RLlib's own heads and
ours. A deviation that depends on the observation is not held.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch
from ray.rllib.utils.numpy import convert_to_numpy
from torch import Tensor, nn

from rayprune.pruning.pruner import Pruner
from rayprune.pruning.remedies.hold_deviation import KEY
from rayprune.pruning.reports import MaskChange
from rayprune.rllib.learner.extension import Extension, LearnerView

LOG_STD: Final = "log_std"
"""What RLlib's heads and ours call the parameter."""


class HeldDeviation(Extension):
    """Lifts what an update has taken off a module's log-stds, from the first cut to the last."""

    key = "held_deviation"

    def __init__(self, view: LearnerView) -> None:
        super().__init__(view)
        self._floors: dict[str, dict[str, Tensor]] = {}

    def detach(self, module_id: str) -> None:
        """Let a module go."""
        self._floors.pop(module_id, None)

    def after_mask_update(self, module_id: str, pruner: Pruner, change: MaskChange) -> None:
        """Note the log-stds at the first cut."""
        if change.pruned and pruner.config.remedies.get(KEY) and module_id not in self._floors:
            held = log_stds(self._view.module(module_id))
            self._floors[module_id] = {name: p.detach().clone() for name, p in held.items()}

    @torch.no_grad()
    def after_masks(self, module_id: str, pruner: Pruner) -> None:
        """Lift log-stds that have fallen below what was noted, while masks may change."""
        floors = self._floors.get(module_id)
        if not floors or not pruner.config.remedies.get(KEY):
            return
        if pruner.finished(self._view.clock):
            return
        for name, parameter in log_stds(self._view.module(module_id)).items():
            if name in floors:
                parameter.copy_(torch.maximum(parameter, floors[name].to(parameter.device)))

    def get_state(self) -> dict[str, Any]:
        """Return what was noted, by module id and parameter name."""
        return {mid: convert_to_numpy(floors) for mid, floors in self._floors.items()}

    def set_state(self, state: Mapping[str, Any] | None) -> None:
        """Take over what `get_state` returned."""
        self._floors = {
            mid: {name: torch.as_tensor(value) for name, value in floors.items()}
            for mid, floors in (state or {}).items()
        }


def log_stds(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return the log-stds of a module that are parameters and are trained, by their full names."""
    return {
        name: parameter
        for name, parameter in module.named_parameters()
        if name.rpartition(".")[2] == LOG_STD and parameter.requires_grad
    }
