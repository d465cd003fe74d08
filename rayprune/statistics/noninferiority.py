"""Is a pruned policy no worse than the dense one, but for a margin? Asked after every round.

Both the mean return and its lower tail (CVaR) have to be shown to lie within their margins. Each is
shown at the given confidence, so the chance of certifying a policy of which either is false is at
most ``1 - confidence``, however often one looks and whenever one stops: an intersection-union test
needs no correction. Each is refuted at half the error, so wrong refutations are as rare.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np

from rayprune.statistics.betting import Contrast, MeanEvidence
from rayprune.statistics.cvar import TailEvidence, cvar

NON_INFERIOR: Final = "non-inferior"
INFERIOR: Final = "inferior"
UNDECIDED: Final = "undecided"
QUESTIONS: Final = ("mean", "tail")


class EvidenceStream(Protocol):
    """Grows pair by pair."""

    def add(self, pruned: float, dense: float) -> None:
        """Take in the returns of one pair of episodes."""

    def log(self) -> float:
        """Return the logarithm of the evidence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Margin:
    """By how much a figure may be lower than the dense policy's.

    >>> Margin(size=0.05, share=True).allowances(0.0, 500.0)
    [Contrast(pruned=0.0, dense=0.05, constant=0.0)]
    >>> [one.dense for one in Margin(size=0.05, share=True).allowances(-500.0, 300.0)]
    [0.05, -0.05]
    """

    size: float
    share: bool
    """Whether it is a share of the dense mean return's size; else it is in the returns' units."""

    def allowances(self, low: float, high: float) -> list[Contrast]:
        """Return what the claim adds to the difference; it holds if one of them makes it hold.

        The size of a mean is that mean or its negative, whichever is larger. Where the range has
        both signs, both are tried.
        """
        if not self.share:
            return [Contrast(constant=self.size)]
        signs = ([1.0] if high > 0 else []) + ([-1.0] if low < 0 else [])
        return [Contrast(dense=sign * self.size) for sign in signs or [1.0]]

    def of(self, dense_mean: float) -> float:
        """Return the margin in the returns' units."""
        return self.size * abs(dense_mean) if self.share else self.size


@dataclass(frozen=True, slots=True, kw_only=True)
class Criteria:
    """What has to be shown."""

    margin: Margin
    """Of the mean return."""
    tail_margin: Margin
    """Of the CVaR."""
    low: float
    """The least return possible."""
    high: float
    """The largest."""
    confidence: float = 0.95
    tail: float = 0.25
    """The share of episodes that the CVaR is the mean of."""

    def margin_of(self, question: str) -> Margin:
        """Return the margin of ``"mean"`` or ``"tail"``."""
        return self.margin if question == "mean" else self.tail_margin


class Question:
    """Whether one figure lies within its margin: evidence for it, and against it."""

    def __init__(self, criteria: Criteria, name: str, margin: Margin | None = None) -> None:
        low, high, tail = criteria.low, criteria.high, criteria.tail
        given = margin or criteria.margin_of(name)
        self._for: list[EvidenceStream] = []
        self._against: list[EvidenceStream] = []
        for allowance in given.allowances(low, high):
            if name == "mean":
                claim = Contrast(
                    pruned=1.0, dense=allowance.dense - 1.0, constant=allowance.constant
                )
                self._for.append(MeanEvidence(claim, low, high))
                self._against.append(MeanEvidence(-claim, low, high))
            else:
                self._for.append(TailEvidence(allowance, "pruned", tail, low, high))
                self._against.append(TailEvidence(-allowance, "dense", tail, low, high))
        self.log_for: list[float] = []
        """After each pair, the logarithm of the evidence that it lies within."""
        self.log_against: list[float] = []
        """Likewise that it doesn't."""

    def add(self, pruned: float, dense: float) -> None:
        """Take in one pair."""
        for evidence in (*self._for, *self._against):
            evidence.add(pruned, dense)
        # Within by one allowance will do, and an average of fair wealths is fair.
        logs = np.array([evidence.log() for evidence in self._for])
        self.log_for.append(float(np.logaddexp.reduce(logs) - math.log(len(logs))))
        # To be outside it has to be outside by all of them.
        self.log_against.append(min(evidence.log() for evidence in self._against))

    def shown_at(self, error: float) -> int | None:
        """Return after how many pairs it was shown, None while it isn't."""
        return _first_above(self.log_for, error)

    def refuted_at(self, error: float) -> int | None:
        """Return after how many pairs it was refuted, None while it isn't."""
        return _first_above(self.log_against, error)


class NonInferiority:
    """The running test.

    >>> test = NonInferiority(Criteria(
    ...     margin=Margin(size=0.05, share=True), tail_margin=Margin(size=0.2, share=True),
    ...     low=0.0, high=500.0))
    >>> for _ in range(100):
    ...     test.add(500.0, 500.0)
    >>> test.verdict, test.decided_at
    ('non-inferior', 68)
    """

    def __init__(self, criteria: Criteria) -> None:
        self.criteria = criteria
        self.pruned: list[float] = []
        self.dense: list[float] = []
        self.questions = {name: Question(criteria, name) for name in QUESTIONS}

    def add(self, pruned: float, dense: float) -> None:
        """Take in the returns of one pair of episodes; they must lie within the range."""
        self.pruned.append(pruned)
        self.dense.append(dense)
        for question in self.questions.values():
            question.add(pruned, dense)

    @property
    def verdict(self) -> str:
        """``"non-inferior"``, ``"inferior"`` or ``"undecided"``."""
        return self._decision()[0]

    @property
    def decided_at(self) -> int | None:
        """After how many pairs the verdict was reached, None while it is open."""
        return self._decision()[1]

    def _decision(self) -> tuple[str, int | None]:
        error = 1.0 - self.criteria.confidence
        asked = self.questions.values()
        refuted = [at for one in asked if (at := one.refuted_at(error / len(QUESTIONS)))]
        shown = [at for one in asked if (at := one.shown_at(error))]
        certified = max(shown) if len(shown) == len(QUESTIONS) else None
        # Whichever came first stands: to go on after a verdict would be a second test.
        if refuted and (certified is None or min(refuted) <= certified):
            return INFERIOR, min(refuted)
        return (UNDECIDED, None) if certified is None else (NON_INFERIOR, certified)

    def figures(self, name: str) -> dict[str, Any]:
        """Return what is known of ``"mean"`` or ``"tail"``.

        Returns:
            ``dense``, ``pruned`` and ``difference``: estimates; ``margin`` in the returns' units,
            by the estimate of the dense mean; ``p``: the anytime-valid p-value of "not within the
            margin", and ``p_against`` of "within"; ``shown_at`` and ``refuted_at`` in pairs.
        """
        error, question = 1.0 - self.criteria.confidence, self.questions[name]
        measure: Callable[[Sequence[float]], float] = (
            (lambda values: float(np.mean(values)))
            if name == "mean"
            else (lambda values: cvar(values, self.criteria.tail))
        )
        dense, pruned = measure(self.dense), measure(self.pruned)
        margin = self.criteria.margin_of(name)
        return {
            "dense": dense,
            "pruned": pruned,
            "difference": pruned - dense,
            "margin": margin.of(float(np.mean(self.dense))),
            "p": _p_value(question.log_for),
            "p_against": _p_value(question.log_against),
            "shown_at": question.shown_at(error),
            "refuted_at": question.refuted_at(error / len(QUESTIONS)),
        }

    def least_margin(self, name: str, tolerance: float = 0.002) -> float | None:
        """Return the least margin that these pairs would show, in the unit of the one asked for.

        A bound on the loss at the given confidence, of one figure, whenever it is taken.

        Args:
            name: ``"mean"`` or ``"tail"``.
            tolerance: how near to the least, as a share of the largest that is tried.

        Returns:
            None where not even the whole range (or 100 %) would do.
        """
        share = self.criteria.margin_of(name).share
        most = 1.0 if share else self.criteria.high - self.criteria.low
        if not self._would_show(name, Margin(size=most, share=share)):
            return None
        below, above = 0.0, most
        while above - below > tolerance * most:
            middle = (below + above) / 2
            if self._would_show(name, Margin(size=middle, share=share)):
                above = middle
            else:
                below = middle
        return above

    def _would_show(self, name: str, margin: Margin) -> bool:
        question = Question(self.criteria, name, margin)
        for pruned, dense in zip(self.pruned, self.dense, strict=True):
            question.add(pruned, dense)
        return question.shown_at(1.0 - self.criteria.confidence) is not None


def _first_above(logs: Sequence[float], error: float) -> int | None:
    needed = -math.log(error)
    return next((n for n, value in enumerate(logs, start=1) if value >= needed), None)


def _p_value(logs: Sequence[float]) -> float:
    return min(1.0, math.exp(-max(logs))) if logs else 1.0
