"""Iterative pruning: rounds of the same share of what is left, with retraining between."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from rayprune.pruning.checks import Faults, in_open_unit, must
from rayprune.pruning.schedules.base import Span, check_schedule


@dataclass(frozen=True, slots=True, kw_only=True)
class IterativeSchedule(Span):
    """Rounds that each prune ``share`` of what is left, with retraining between them.

    After round r the sparsity is ``min(final, 1 - (1 - share)^r)``. As many rounds as ``final``
    takes are spread evenly: the first is at ``begin``, the last at ``end``. 20 % a round is
    the usual step of Han et al. 2015 (arXiv:1506.02626) and Frankle & Carbin 2019
    (arXiv:1803.03635).

    >>> rounds = IterativeSchedule(final=0.5, begin=0, end=300, share=0.2)
    >>> rounds.rounds, [round(rounds.sparsity_at(t), 3) for t in (0, 99, 100, 200, 299, 300, 900)]
    (4, [0.2, 0.2, 0.36, 0.488, 0.488, 0.5, 0.5])
    """

    defaults: ClassVar[Mapping[str, Any]] = {"share": 0.2}

    final: float
    begin: float
    end: float
    share: float = 0.2

    def __post_init__(self) -> None:
        share = "" if in_open_unit(self.share) else must("share", "in (0, 1)", self.share)
        check_schedule(self.final, self.begin, self.end, share)

    @property
    def rounds(self) -> int:
        """How many rounds ``final`` takes."""
        if self.final == 0.0:
            return 0
        exact = math.log1p(-self.final) / math.log1p(-self.share)
        # 1 - (1 - 0.2)^3 written as 0.488 must take three rounds, not four.
        return max(1, math.ceil(exact - 1e-9))

    def sparsity_at(self, step: float) -> float:
        """Return 0 before ``begin``, the round's sparsity between, ``final`` from ``end`` on."""
        if step >= self.end:
            return self.final
        if step < self.begin:
            return 0.0
        progress = (step - self.begin) / (self.end - self.begin)
        done = 1 + math.floor(progress * (self.rounds - 1) + 1e-9)
        return min(self.final, 1.0 - math.pow(1.0 - self.share, done))

    @classmethod
    def own_faults(cls, field: str, block: Mapping[str, Any]) -> Faults:
        """Yield the fault of ``share``."""
        if "share" in block and not in_open_unit(block["share"]):
            yield must(f"{field}.share", "in (0, 1), of what is left", block["share"])
