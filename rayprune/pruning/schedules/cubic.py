"""Gradual pruning along the cubic ramp of Zhu and Gupta."""

from __future__ import annotations

from dataclasses import dataclass

from rayprune.pruning.schedules.ramp import Ramp


@dataclass(frozen=True, slots=True, kw_only=True)
class CubicSchedule(Ramp):
    """The gradual-pruning ramp of Zhu & Gupta 2017 (arXiv:1710.01878): ``final * (1 - (1-p)^3)``.

    Fast while there is much to prune, slow towards the end.

    >>> ramp = CubicSchedule(final=0.9, begin=0, end=100)
    >>> [round(ramp.sparsity_at(step), 4) for step in (0, 50, 100, 500)]
    [0.0, 0.7875, 0.9, 0.9]
    """

    def _between(self, progress: float) -> float:
        return self.final * (1.0 - (1.0 - progress) ** 3)
