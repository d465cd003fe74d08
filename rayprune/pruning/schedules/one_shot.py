"""One-shot pruning: everything in a single cut."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rayprune.pruning.schedules.base import Span, check_schedule


@dataclass(frozen=True, slots=True, kw_only=True)
class OneShotSchedule(Span):
    """A single cut: nothing before ``begin``, everything at it.

    >>> cut = OneShotSchedule(final=0.9, begin=100)
    >>> [cut.sparsity_at(step) for step in (0, 99, 100, 500)]
    [0.0, 0.0, 0.9, 0.9]
    """

    endless: ClassVar[bool] = True

    final: float
    begin: float

    def __post_init__(self) -> None:
        check_schedule(self.final, self.begin, self.begin)

    @property
    def end(self) -> float:
        """The same step as ``begin``."""
        return self.begin

    def sparsity_at(self, step: float) -> float:
        """Return 0 before ``begin`` and ``final`` from it on."""
        return self.final if step >= self.begin else 0.0
