"""Remedy ``reconstruct`` on a Learner: layers are held against what they were before a cut."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
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
BYTES: Final = 2**27
"""So many of observations are kept, or a few more: fewer rows of images."""
NAME: Final = "reconstruction at mask updates"
"""What it is called where a module can't be run."""
_COLUMNS: Final = (
    Columns.OBS,
    Columns.NEXT_OBS,
    Columns.STATE_IN,
    Columns.ACTIONS,
    Columns.LOSS_MASK,
    Columns.SEQ_LENS,
)
"""What a module's forward may read."""


class CalibrationBatches(Extension):
    """Keeps a Learner's last minibatches, by reference, for layers to be solved on."""

    def __init__(self, view: LearnerView) -> None:
        super().__init__(view)
        self._held: dict[str, _LastRows] = {}

    def detach(self, module_id: str) -> None:
        """Let a module go."""
        self._held.pop(module_id, None)

    def on_batch(self, batch: Mapping[str, Any]) -> None:
        """Keep a reference to a minibatch, where it will be looked at."""
        for module_id, pruner in self._view.pruners.items():
            if module_id in batch and _asks(pruner):
                self._held.setdefault(module_id, _LastRows()).add(batch[module_id])

    def on_barrier(self) -> None:
        """Let all minibatches go: a checkpoint holds none, and a run resumed must equal one not."""
        self._held.clear()

    def calibration(
        self, module_id: str, pruner: Pruner, *, at_once: bool = False
    ) -> Calibration | None:
        """Return what runs a module on its last minibatches; None if nothing can or need.

        All Learners of a group ask at the same mask update, and all or none are given one.

        Args:
            module_id: of the module.
            pruner: of it.
            at_once: whether it is about to prune, whatever its schedule says.
        """
        if not _asks(pruner) or not (at_once or pruner.due(self._view.clock)):
            return None
        held = self._held.get(module_id)
        if ranks.any_has(held is None, self._view.learner) or held is None:
            return None
        run = partial(_run, self._view.module(module_id), held.batches())
        # A module that can't be run on one Learner would leave the others waiting later.
        failed = self._view.diagnostics.take(NAME, module_id, run, otherwise=True)
        if ranks.any_has(bool(failed), self._view.learner):
            return None
        return Calibration(run=run, across=ranks.over_learners())


def _asks(pruner: Pruner) -> bool:
    return bool(pruner.config.remedies.get(KEY))


def _run(module: Any, batches: Sequence[Mapping[str, Any]]) -> bool:
    """Run a module's policy and values on minibatches, as one; return that nothing failed."""
    joined = {
        column: tree.map_structure(lambda *parts: torch.cat(parts), *(b[column] for b in batches))
        for column in _COLUMNS
        if all(column in batch for batch in batches)
    }
    family = family_of_module(module)
    with torch.no_grad(), left_alone(module):
        family.all_forwards(module, joined)
    return False


class _LastRows:
    """The last minibatches of one module: no more than it takes for `ROWS` or `BYTES`."""

    def __init__(self) -> None:
        self._held: deque[tuple[Mapping[str, Any], int, int]] = deque()
        self._rows = self._bytes = 0

    def add(self, batch: Mapping[str, Any]) -> None:
        """Keep a reference to a minibatch, and let go of those that aren't needed any more."""
        parts = tree.flatten(batch[Columns.OBS])
        rows, size = len(parts[0]), sum(part.nbytes for part in parts)
        self._held.append((batch, rows, size))
        self._rows, self._bytes = self._rows + rows, self._bytes + size
        while True:
            _, rows, size = self._held[0]
            if self._rows - rows < ROWS and self._bytes - size < BYTES:
                return
            self._held.popleft()
            self._rows, self._bytes = self._rows - rows, self._bytes - size

    def batches(self) -> list[Mapping[str, Any]]:
        """Return them, the oldest first."""
        return [batch for batch, _, _ in self._held]
