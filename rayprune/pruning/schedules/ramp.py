"""Gradual pruning: what the ramps from ``begin`` to ``end`` share."""

from __future__ import annotations

from dataclasses import dataclass

from rayprune.pruning.schedules.base import Span, check_schedule


@dataclass(frozen=True, slots=True, kw_only=True)
class Ramp(Span):
    """A ramp: 0 up to ``begin``, ``final`` from ``end`` on, the kind's own curve between."""

    final: float
    begin: float
    end: float

    def __post_init__(self) -> None:
        check_schedule(self.final, self.begin, self.end)

    def sparsity_at(self, step: float) -> float:
        """Return 0 up to ``begin``, the ramp's value between, and ``final`` from ``end`` on."""
        if step >= self.end:
            return self.final
        if step <= self.begin:
            return 0.0
        return self._between((step - self.begin) / (self.end - self.begin))

    def _between(self, progress: float) -> float:
        raise NotImplementedError
