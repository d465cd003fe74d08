"""The return-gated schedule's decisions: a state machine that knows no training.

Prune a step, wait until the return is back, go on; when it does not come back within its patience,
go back to the last policy that held and try the next criterion, or a smaller step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any

from rayprune.pruning.schedules.times import in_steps


class Verdict(Enum):
    """What follows from a validation."""

    WAIT = "wait"
    """Train on."""
    ACCEPT = "accept"
    """The policy holds: keep its checkpoint, and go on from it at the next level."""
    ROLL_BACK = "roll_back"
    """Patience has ended: go back to the last policy that held, and try another level."""
    END = "end"
    """There is nothing more to try; the last policy that held is the result."""


@dataclass(frozen=True, kw_only=True)
class Gate:
    """What a gate is told; times in env steps.

    Args:
        step: share of what is left that a first try prunes, in (0, 1).
        least_step: no try prunes a smaller share.
        floor: share of the reference that the return's lower bound must reach.
        patience: how long a try may take.
        most: the sparsity at which the search is over.
        criteria: tried in turn at each step, before it is halved.
        reference: a return; None for the best validation so far.
        begin: nothing is pruned before.
    """

    step: float
    least_step: float
    floor: float
    patience: float
    most: float
    criteria: tuple[str, ...]
    reference: float | None = None
    begin: float = 0.0

    @classmethod
    def of(cls, schedule: Mapping[str, Any], *, horizon: int, most: float, criterion: str) -> Gate:
        """Return the gate of a complete ``schedule`` mapping.

        Args:
            schedule: of kind gated; a reference that is not a number is left for the caller.
            horizon: env steps of the run, which fractions refer to.
            most: the sparsity's upper bound.
            criterion: where the schedule lists none.
        """
        begin, reference = schedule["begin"], schedule["reference"]
        return cls(
            step=schedule["step"],
            least_step=min(schedule["least_step"], schedule["step"]),
            floor=schedule["floor"],
            patience=in_steps(schedule["patience"], horizon),
            most=most,
            criteria=tuple(schedule["criteria"] or (criterion,)),
            reference=None if isinstance(reference, str) else float(reference),
            begin=0.0 if isinstance(begin, Mapping) else in_steps(begin, horizon),
        )


def bar(reference: float, floor: float) -> float:
    """Return what a return's lower bound must reach: ``reference - (1 - floor) * |reference|``.

    Of a positive reference that is its share ``floor``; a negative one may fall by as much.

    >>> bar(500.0, 0.95), bar(-120.0, 0.95), bar(0.0, 0.95)
    (475.0, -126.0, 0.0)
    """
    return reference - (1.0 - floor) * abs(reference)


@dataclass(kw_only=True)
class GateState:
    """Where the search stands: plain values, so that a checkpoint's JSON holds it.

    `observe` is its only transition.
    """

    level: float | None = None
    """The sparsity of the last policy that held; None before the dense one does."""
    trying: float = 0.0
    since: float = 0.0
    """The clock at which this try began."""
    step: float | None = None
    criterion: int = 0
    """Which of the gate's criteria prunes."""
    failed: int = 0
    """Tries at this step that failed since the last one that held."""
    peak: float | None = None
    ended: str | None = None
    """Why the search is over."""
    tries: list[dict[str, Any]] = field(default_factory=list)
    """Each try that came to an end."""

    def observe(
        self, gate: Gate, clock: float, iqm: float, low: float, *, behind: bool = False
    ) -> Verdict:
        """Take a validation in and decide.

        Args:
            gate: the settings.
            clock: env steps, those of tries that were rolled back included.
            iqm: the validation return.
            low: the lower bound of its interval.
            behind: whether the policy is not as sparse yet as is tried, held back by a trust
                region: it can't be accepted, and its patience runs on.
        """
        if self.ended is not None:
            return Verdict.END
        self.peak = iqm if self.peak is None else max(self.peak, iqm)
        if clock < gate.begin:
            return Verdict.WAIT
        reference = self.peak if gate.reference is None else gate.reference
        if low >= bar(reference, gate.floor) and not behind:
            return self._accept(gate, clock, low, reference)
        # A dense policy that has yet to learn has all the time of the run.
        if self.level is None or clock - self.since < gate.patience:
            return Verdict.WAIT
        return self._roll_back(gate, clock, low, reference)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)

    @property
    def rollbacks(self) -> int:
        """How many tries did not hold."""
        return sum(not one["held"] for one in self.tries)

    def _accept(self, gate: Gate, clock: float, low: float, reference: float) -> Verdict:
        self._note(gate, clock, low, reference, held=True)
        self.level, self.failed = self.trying, 0
        if self.step is None:
            self.step = gate.step
        if self.level >= gate.most:
            self.ended = "the upper bound of the sparsity is reached"
            return Verdict.ACCEPT
        self._try_next(gate, clock)
        return Verdict.ACCEPT

    def _roll_back(self, gate: Gate, clock: float, low: float, reference: float) -> Verdict:
        assert self.step is not None
        self._note(gate, clock, low, reference, held=False)
        self.failed += 1
        self.criterion = (self.criterion + 1) % len(gate.criteria)
        if self.failed == len(gate.criteria):
            self.step, self.failed = self.step / 2, 0
        if self.step < gate.least_step:
            self.ended = "the smallest step did not hold"
            return Verdict.END
        self._try_next(gate, clock)
        return Verdict.ROLL_BACK

    def _try_next(self, gate: Gate, clock: float) -> None:
        assert self.level is not None
        assert self.step is not None
        self.trying = min(gate.most, 1.0 - (1.0 - self.level) * (1.0 - self.step))
        self.since = clock

    def _note(self, gate: Gate, clock: float, low: float, reference: float, *, held: bool) -> None:
        self.tries.append(
            {
                "sparsity": self.trying,
                "criterion": gate.criteria[self.criterion],
                "from": self.since,
                "until": clock,
                "low": low,
                "reference": reference,
                "bar": bar(reference, gate.floor),
                "held": held,
            }
        )
