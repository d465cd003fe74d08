"""Schedules that prune in rounds: iterative, lottery ticket, and gated by the return."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rayprune.pruning.schedules.base import check_schedule

DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "iterative": {"share": 0.2},
    "lottery": {"round_steps": None},
    "gated": {
        "begin": 0.2,
        "step": 0.2,
        "least_step": 0.05,
        "floor": 0.95,
        "reference": "peak",
        "patience": 0.1,
        "criteria": None,
    },
}
"""What a kind has where its mapping says nothing, beside what all kinds have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IterativeSchedule:
    """Rounds that each prune ``share`` of what is left, with retraining between them.

    After round r the sparsity is ``min(final, 1 - (1 - share)^r)``. As many rounds as ``final``
    takes are spread evenly: the first is at ``begin``, the last at ``end``. 20 % a round is
    the usual step of Han et al. 2015 (arXiv:1506.02626) and Frankle & Carbin 2019
    (arXiv:1803.03635).

    >>> rounds = IterativeSchedule(final=0.5, begin=0, end=300, share=0.2)
    >>> rounds.rounds, [round(rounds.sparsity_at(t), 3) for t in (0, 99, 100, 200, 299, 300, 900)]
    (4, [0.2, 0.2, 0.36, 0.488, 0.488, 0.5, 0.5])
    """

    final: float
    begin: float
    end: float
    share: float = 0.2

    def __post_init__(self) -> None:
        check_schedule(self.final, self.begin, self.end, _share_fault("share", self.share))

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


@dataclass(frozen=True, slots=True, kw_only=True)
class LotterySchedule:
    """Iterative magnitude pruning with rewinding: the rounds of a lottery ticket.

    Frankle & Carbin 2019 (arXiv:1803.03635) rewind to the initialisation (``rewind_to=0``),
    Frankle et al. 2020 (arXiv:1912.05671) to an early step k. From k on, each round trains
    ``round_steps``, is pruned by the same share of what is left, ``1 - (1 - final)^(r / rounds)``,
    and goes back to the weights of step k under the new mask. After the last round the ticket
    trains to the end of the run.

    >>> ticket = LotterySchedule(final=0.75, rounds=2, rewind_to=100, round_steps=300)
    >>> (ticket.begin, ticket.end), [ticket.sparsity_at(t) for t in (399, 400, 699, 700, 900)]
    ((400, 700), [0.0, 0.5, 0.5, 0.75, 0.75])
    """

    final: float
    rounds: int
    rewind_to: float
    round_steps: float

    def __post_init__(self) -> None:
        check_schedule(
            self.final,
            self.begin,
            self.end,
            "" if self.rounds >= 1 else f"`rounds` must be at least 1, but is {self.rounds}.",
            ""
            if self.round_steps >= 1
            else f"`round_steps` must be at least 1, but is {self.round_steps}.",
        )

    @property
    def begin(self) -> float:
        """The end of the first round."""
        return self.rewind_to + self.round_steps

    @property
    def end(self) -> float:
        """The end of the last round."""
        return self.rewind_to + self.rounds * self.round_steps

    def sparsity_at(self, step: float) -> float:
        """Return the sparsity of the rounds that have ended by a step."""
        done = min(self.rounds, max(0, math.floor((step - self.rewind_to) / self.round_steps)))
        if done == self.rounds:
            return self.final
        return 1.0 - math.pow(1.0 - self.final, done / self.rounds)


@dataclass(frozen=True, slots=True, kw_only=True)
class GatedSchedule:
    """As sparse as a driver has decided so far: ``min(level, final)`` from ``begin`` on.

    The driver is `rayprune.pruning.schedules.gate`: it raises ``level`` while the return holds.
    What else the YAML gives a gated schedule (``step``, ``floor``, ...) is for it.

    >>> gate = GatedSchedule(final=0.9, begin=100, level=0.36)
    >>> [gate.sparsity_at(step) for step in (99, 100, 500)], gate.end
    ([0.0, 0.36, 0.36], inf)
    """

    final: float
    begin: float
    level: float = 0.0

    def __post_init__(self) -> None:
        check_schedule(self.final, self.begin, self.end)

    @property
    def end(self) -> float:
        """``begin`` once there is nothing more to prune, and never until then."""
        return self.begin if self.level >= self.final else math.inf

    def sparsity_at(self, step: float) -> float:
        """Return 0 before ``begin``, and the level, ``final`` at most, from it on."""
        return min(self.level, self.final) if step >= self.begin else 0.0


def _share_fault(name: str, share: float) -> str:
    return "" if 0.0 < share < 1.0 else f"`{name}` must be in (0, 1), but is {share}."
