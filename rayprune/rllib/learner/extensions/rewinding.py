"""What a Learner does at the end of a lottery ticket's round: go back to early weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from rayprune.pruning.pruner import Pruner
from rayprune.pruning.reports import MaskChange
from rayprune.pruning.schedules.rewinding import Snapshot
from rayprune.rllib.algorithms.target_networks import target_prefixes, target_tensors
from rayprune.rllib.learner.extension import Extension, LearnerView
from rayprune.rllib.learner.extensions import unsaved_state as unsaved
from rayprune.rllib.learner.optimizers import forget_state


class Rewinding(Extension):
    """Holds each module's snapshot, and puts it back with all that belongs to it.

    Beside the weights go back PPO's KL coefficient and SAC's temperature; the optimizers forget
    their moments, and target networks are copied from the rewound source. Clock, learning-rate
    schedule, replay buffer and observation filters go on.
    """

    key = "rewinding"

    def __init__(self, view: LearnerView) -> None:
        super().__init__(view)
        self._held: dict[str, Snapshot] = {}
        self._values: dict[str, dict[str, Any]] = {}

    def before_update(self, module_id: str, pruner: Pruner) -> None:
        """Take the snapshot of a lottery ticket, once its time has come."""
        if not pruner.config.chosen.schedule.rewinds or module_id in self._held:
            return
        schedule: Any = pruner.config.build_schedule(0.0)
        if self._view.clock >= schedule.rewind_to:
            self._held[module_id] = snapshot = Snapshot(target_prefixes(pruner.module))
            snapshot.take(pruner.module)
            self._values[module_id] = unsaved.learned_values(self._view.learner, module_id)

    before_mask_update = before_update

    def after_mask_update(self, module_id: str, pruner: Pruner, change: MaskChange) -> None:
        """End a round: go back to the snapshot."""
        if change.pruned:
            self.rewind(module_id, pruner)

    @torch.no_grad()
    def rewind(self, module_id: str, pruner: Pruner) -> None:
        """Put the snapshot back under the masks of now, if there is one."""
        snapshot = self._held.get(module_id)
        if snapshot is None:
            return
        snapshot.rewind(pruner.module, pruner.written_masks)
        pruner.mask_weights()  # biases of silent hidden units, which hold no mask of their own
        for source, target in target_tensors(pruner.module):
            target.copy_(source)
        forget_state(self._view.learner, module_id)
        unsaved.put_back(self._view.learner, self._values[module_id])

    def detach(self, module_id: str) -> None:
        """Forget a module's snapshot: the module is gone."""
        self._held.pop(module_id, None)
        self._values.pop(module_id, None)

    def get_state(self) -> dict[str, Any]:
        """Return the snapshots by module id."""
        return {
            module_id: {**held.state_dict(), "values": self._values[module_id]}
            for module_id, held in self._held.items()
        }

    def set_state(self, state: Mapping[str, Any] | None) -> None:
        """Take over what `get_state` returned."""
        self._held.clear()
        pruners = self._view.pruners
        for module_id, held in (state or {}).items():
            if module_id in pruners:
                module = pruners[module_id].module
                self._held[module_id] = snapshot = Snapshot(target_prefixes(module))
                snapshot.load_state_dict(held, module)
                self._values[module_id] = dict(held["values"])
