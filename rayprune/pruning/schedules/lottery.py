"""Lottery tickets: iterative pruning with rewinding to early weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from rayprune.pruning.checks import Faults, is_time, must, whole
from rayprune.pruning.schedules.base import Schedule, check_schedule
from rayprune.pruning.schedules.times import in_steps


@dataclass(frozen=True, slots=True, kw_only=True)
class LotterySchedule(Schedule):
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

    defaults: ClassVar[Mapping[str, Any]] = {"round_steps": None}
    times: ClassVar[tuple[str, ...]] = ("rewind_to", "round_steps")
    in_rounds: ClassVar[bool] = True
    rewinds: ClassVar[bool] = True
    undoes: ClassVar[str] = "rewinds to weights of the whole network"

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

    @classmethod
    def faults(cls, field: str, block: Mapping[str, Any]) -> Faults:
        """Yield what is wrong with its keys."""
        yield from cls._rewind_faults(f"{field}.rewind_to", block.get("rewind_to"))
        rounds, length = block.get("rounds"), block.get("round_steps")
        if rounds is None:
            yield f"`{field}.rounds` is missing: how often a lottery ticket is pruned and rewound."
        else:
            yield from whole(f"{field}.rounds", rounds, "an integer of at least 1", least=1)
        if length is not None and not (is_time(length) and length > 0):
            yield must(f"{field}.round_steps", "above 0 (above 1: env steps) or null", length)

    @staticmethod
    def _rewind_faults(field: str, value: Any) -> Faults:
        if value is None:
            yield (
                f"`{field}` is missing: the step whose weights a lottery ticket goes back "
                "to. Give 0 for the initialisation, or an early step such as 10000; or choose "
                "kind: iterative, which goes on from the weights that it has."
            )
        elif not is_time(value):
            yield must(field, "a number of at least 0", value)

    @classmethod
    def every(cls, block: Mapping[str, Any], horizon: int) -> int:
        """Return the env steps of a round."""
        return int(cls.times_in_steps(block, horizon)["round_steps"])

    @classmethod
    def times_in_steps(cls, block: Mapping[str, Any], horizon: int) -> dict[str, float]:
        """Return a complete mapping's times in env steps, by their key.

        >>> ticket = {"kind": "lottery", "rounds": 4, "rewind_to": 0, "round_steps": None}
        >>> LotterySchedule.times_in_steps(ticket, horizon=1000)
        {'rewind_to': 0, 'round_steps': 200}
        """
        # Whole steps, so that the ends of rounds are met exactly.
        start = int(in_steps(block["rewind_to"], horizon))
        length = block["round_steps"]
        if length is None:
            length = max(1, (horizon - start) // (block["rounds"] + 1))
        return {"rewind_to": start, "round_steps": int(in_steps(length, horizon))}
