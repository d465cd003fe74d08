"""Remedy ``reconstruct`` on a Learner: layers are held against what they were before a cut."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Final

import torch
import tree
from ray.rllib.core.columns import Columns

from rayprune.pruning.pruner import Pruner
from rayprune.pruning.remedies.reconstruct import KEY
from rayprune.pruning.update.reconstruction import Calibration
from rayprune.rllib.algorithms import family_of_module
from rayprune.rllib.learner import ranks
from rayprune.rllib.learner.extension import Extension, LearnerView
from rayprune.rllib.learner.policy_outputs import left_alone

ROWS: Final = 4096
"""So many of the last rows are looked at, or a few more."""
NAME: Final = "reconstruction at mask updates"
"""What it is called where a module can't be run."""
_COLUMNS: Final = (
    Columns.OBS,
    Columns.NEXT_OBS,
    Columns.STATE_IN,
    Columns.ACTIONS,
    Columns.ACTION_DIST_INPUTS,
    Columns.LOSS_MASK,
    Columns.SEQ_LENS,
)
"""What a module's forward may read."""


class CalibrationBatches(Extension):
    """Keeps a Learner's last minibatches, by reference, for layers to be solved on."""

    def __init__(self, view: LearnerView) -> None:
        super().__init__(view)
        self._held: dict[str, deque[Mapping[str, Any]]] = {}

    def detach(self, module_id: str) -> None:
        """Let a module go."""
        self._held.pop(module_id, None)

    def on_batch(self, batch: Mapping[str, Any]) -> None:
        """Keep a reference to a minibatch, where it will be looked at."""
        for module_id, pruner in self._view.pruners.items():
            if module_id in batch and _asks(pruner):
                held = self._held.setdefault(module_id, deque())
                held.append(batch[module_id])
                while sum(map(_row_count, held)) - _row_count(held[0]) >= ROWS:
                    held.popleft()

    def on_barrier(self) -> None:
        """Let all minibatches go: a checkpoint holds none, and a run resumed must equal one not."""
        self._held.clear()

    def calibration(self, module_id: str, pruner: Pruner) -> Calibration | None:
        """Return what runs a module on its last minibatches; None if nothing can or need.

        All Learners of a group ask at the same mask update, and all or none are given one.
        """
        if not _asks(pruner) or not pruner.due(self._view.clock):
            return None
        held = self._held.get(module_id)
        if ranks.any_has(not held, self._view.learner) or held is None:
            return None
        run = partial(_run, self._view.module(module_id), held)
        # A module that can't be run on one Learner would leave the others waiting later.
        failed = self._view.diagnostics.take(NAME, module_id, run, otherwise=True)
        if ranks.any_has(bool(failed), self._view.learner):
            return None
        return Calibration(run=run, across=ranks.over_learners())


def _asks(pruner: Pruner) -> bool:
    return bool(pruner.config.remedies.get(KEY))


def _run(module: Any, batches: Iterable[Mapping[str, Any]]) -> bool:
    """Run a module's policy and values on minibatches, as one; return that nothing failed."""
    held = list(batches)
    joined = {
        column: tree.map_structure(lambda *parts: torch.cat(parts), *(b[column] for b in held))
        for column in _COLUMNS
        if all(column in batch for batch in held)
    }
    family = family_of_module(module)
    with torch.no_grad(), left_alone(module):
        family.all_forwards(module, joined)
    return False


def _row_count(batch: Mapping[str, Any]) -> int:
    return len(tree.flatten(batch[Columns.OBS])[0])
