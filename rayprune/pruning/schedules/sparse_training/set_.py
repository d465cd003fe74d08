"""SET: dynamic sparse training that regrows by chance."""

from __future__ import annotations

from dataclasses import dataclass

from rayprune.pruning.schedules.sparse_training.drop_and_regrow import DropAndRegrow
from rayprune.pruning.schedules.sparse_training.sparse_from_start import RANDOM


@dataclass(frozen=True, slots=True, kw_only=True)
class SetSchedule(DropAndRegrow):
    """SET (Mocanu et al. 2018, arXiv:1707.04780): drop the lowest scores, regrow by chance.

    The drop fraction stays what it is until ``end``.

    >>> evolution = SetSchedule(final=0.9, end=100, drop_fraction=0.3)
    >>> [evolution.drop_fraction_at(step) for step in (0, 1, 50, 99, 100)]
    [0.0, 0.3, 0.3, 0.3, 0.0]
    """

    @property
    def regrows_by(self) -> str:
        """Regrown weights are drawn by chance."""
        return RANDOM

    def _annealed(self, progress: float) -> float:
        del progress
        return self.drop_fraction
