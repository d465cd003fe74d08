"""Gradual pruning by the same share of what is left at each update."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rayprune.pruning.schedules.ramp import Ramp


@dataclass(frozen=True, slots=True, kw_only=True)
class ExponentialSchedule(Ramp):
    """The density decays exponentially, ``1 - (1 - final)^p``.

    Every update removes the same share of what is left.

    >>> ramp = ExponentialSchedule(final=0.75, begin=0, end=100)
    >>> [ramp.sparsity_at(step) for step in (0, 50, 100, 500)]
    [0.0, 0.5, 0.75, 0.75]
    """

    def _between(self, progress: float) -> float:
        return 1.0 - math.pow(1.0 - self.final, progress)
