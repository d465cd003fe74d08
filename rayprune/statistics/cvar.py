"""The lower tail of returns, and evidence on how two policies' tails differ.

CVaR, the mean of the worst share of episodes, is ``max over q of E[q - max(q - X, 0) / tail]``, and
the best q is the tail's quantile (Rockafellar & Uryasev 2000, doi:10.21314/JOR.2000.038). Any fixed
q gives a mean that is too low; so a difference of CVaRs is bounded by means, which can be bet on.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from rayprune.statistics.betting import Array, Contrast, Wealth

CELLS: Final = 256
"""Into so many the range of the unknown quantile is cut. A value is bounded within its cell."""


def cvar(returns: Sequence[float], tail: float) -> float:
    """Return the mean of the worst ``tail`` of the returns.

    Args:
        returns: shape ``(n,)``, n >= 1.
        tail: a share in (0, 1]; of an episode that is partly in it that part counts.

    >>> cvar([1.0, 2.0, 3.0, 4.0], 0.5), cvar([1.0, 2.0, 3.0, 4.0], 0.375)
    (1.5, 1.3333333333333333)
    """
    values = np.sort(np.asarray(returns, dtype=float))
    weights = np.clip(tail * len(values) - np.arange(len(values)), 0.0, 1.0)
    return float(weights @ values / weights.sum())


def shortfall(returns: Any, quantile: Any, tail: float) -> Any:
    """Return ``q - max(q - x, 0) / tail``, whose mean is at most the CVaR.

    >>> shortfall(np.array([0.0, 10.0, 20.0]), 10.0, 0.5).tolist()
    [-10.0, 10.0, 10.0]
    """
    return quantile - np.maximum(quantile - returns, 0.0) / tail


class RunningQuantile:
    """The tail's quantile of what came before; ``start`` while nothing did."""

    def __init__(self, tail: float, start: float) -> None:
        self._tail, self._start = tail, start
        self._sorted: list[float] = []

    def add(self, value: float) -> None:
        """Take in one more return."""
        bisect.insort(self._sorted, value)

    def value(self) -> float:
        """Return the quantile."""
        if not self._sorted:
            return self._start
        return self._sorted[min(int(self._tail * len(self._sorted)), len(self._sorted) - 1)]


class TailEvidence:
    """Evidence that one policy's CVaR is above another's, less an allowance.

    Of the claimed better policy a quantile is guessed from earlier episodes, which can only make
    its mean too low. The other's quantile is unknown: all are tried, and the least evidence counts.
    The true one is among them, so that the least is no more than a fair gambler's wealth.

    Args:
        allowance: what the claim adds to the difference, in the two returns.
        better: ``"pruned"`` or ``"dense"``: whose CVaR is claimed to be above.
        tail: the share of episodes.
        low: the least return possible.
        high: the largest.
    """

    def __init__(
        self, allowance: Contrast, better: str, tail: float, low: float, high: float
    ) -> None:
        self._allowance, self._better, self._tail = allowance, better, tail
        self._low, self._high = low, high
        edges = np.linspace(low, high, CELLS + 1)
        self._edges = edges[:-1], edges[1:]
        self._guess = RunningQuantile(tail, high)
        self._wealth = Wealth((CELLS,))

    def add(self, pruned: float, dense: float) -> None:
        """Take in the returns of one pair of episodes."""
        guess = self._guess.value()
        self._wealth.bet(self._values(pruned, dense, guess), self._worst(guess))
        self._guess.add(pruned if self._better == "pruned" else dense)

    def log(self) -> float:
        """Return the logarithm of the evidence: that of 20 stands for 95 % confidence."""
        return float(self._wealth.log().min())

    def _values(self, pruned: Any, dense: Any, guess: float) -> Array:
        """Return the least that a pair shows in each cell; the last axis is the cells'."""
        ours, theirs = (pruned, dense) if self._better == "pruned" else (dense, pruned)
        # Within a cell the other's figure is largest at its own return.
        other = shortfall(theirs, np.clip(theirs, *self._edges), self._tail)
        found: Array = (
            shortfall(ours, guess, self._tail) - other + self._allowance.at(pruned, dense)
        )
        return found

    def _worst(self, guess: float) -> Array:
        """Return the least that any pair could show in each cell."""
        # Piecewise linear in both returns: the least is where a piece ends.
        ours = np.array([self._low, guess, self._high])[:, None, None]
        ends = np.stack([np.full(CELLS, self._low), *self._edges, np.full(CELLS, self._high)])
        pair = (ours, ends[None]) if self._better == "pruned" else (ends[None], ours)
        least: Array = self._values(*pair, guess).min(axis=(0, 1))
        return least
