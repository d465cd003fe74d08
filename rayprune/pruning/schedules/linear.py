"""Gradual pruning along a straight line."""

from __future__ import annotations

from dataclasses import dataclass

from rayprune.pruning.schedules.ramp import Ramp


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearSchedule(Ramp):
    """A straight ramp, ``final * p`` with ``p = (step - begin) / (end - begin)``.

    >>> ramp = LinearSchedule(final=0.8, begin=0, end=100)
    >>> [ramp.sparsity_at(step) for step in (0, 50, 100, 500)]
    [0.0, 0.4, 0.8, 0.8]
    """

    def _between(self, progress: float) -> float:
        return self.final * progress
