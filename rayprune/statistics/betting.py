"""Tests by betting: evidence against a mean, which may be looked at after every observation.

Waudby-Smith & Ramdas 2020 (arXiv:2010.09686). Whoever bets a fixed share of their money against
"the mean is at most zero" can't expect to gain while that is true, however long they play and
whenever they stop. By Ville's inequality their wealth ever reaches ``1 / a`` with a probability of
at most ``a``. No distribution is assumed; a bound on the worst value is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]

_RANKS: Final = np.arange(16)
FRACTIONS: Final[Array] = 2.0 ** (-_RANKS / 2)
"""What is staked of the most that can be staked: a gambler each, from all down to 1/181."""
WEIGHTS: Final[Array] = (1 + 1 / len(_RANKS)) / ((_RANKS + 1.0) * (_RANKS + 2.0))
"""The gamblers' shares of the first money; they sum to one. Half of it is in the boldest, who needs
the fewest observations where all are equal (CartPole's 500), as benchmarks/certify.py measures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """A linear figure of one pair of episodes, ``pruned * P + dense * D + constant``.

    >>> loss_of_at_most_5 = Contrast(pruned=1.0, dense=-1.0, constant=5.0)
    >>> loss_of_at_most_5.at(96.0, 100.0), loss_of_at_most_5.least(0.0, 100.0)
    (1.0, -95.0)
    """

    pruned: float = 0.0
    dense: float = 0.0
    constant: float = 0.0

    def at(self, pruned: Any, dense: Any) -> Any:
        """Return it for returns, numbers or arrays."""
        return self.pruned * pruned + self.dense * dense + self.constant

    def least(self, low: float, high: float) -> float:
        """Return the least it can be while both returns lie within ``[low, high]``."""
        corners = (min(factor * low, factor * high) for factor in (self.pruned, self.dense))
        return sum(corners) + self.constant

    def __neg__(self) -> Contrast:
        return Contrast(pruned=-self.pruned, dense=-self.dense, constant=-self.constant)


class Wealth:
    """What gamblers have made of 1 against "the mean is at most zero".

    Args:
        shape: of the tests that are made side by side.

    >>> wealth = Wealth()
    >>> for _ in range(68):
    ...     wealth.bet(25.0, worst=-475.0)
    >>> round(float(np.exp(wealth.log())), 1)
    20.5
    """

    def __init__(self, shape: tuple[int, ...] = ()) -> None:
        column = (-1, *(1 for _ in shape))
        self._fractions = FRACTIONS.reshape(column)
        self._logs: Array = np.broadcast_to(
            np.log(WEIGHTS).reshape(column), (len(WEIGHTS), *shape)
        ).copy()

    def bet(self, values: Any, worst: Any) -> None:
        """Settle the bets on one observation.

        Args:
            values: what was observed, of the tests' shape or a number.
            worst: the least it could have been, known beforehand; likewise.
        """
        # Where nothing below zero is possible any stake is safe; a large one ends the test.
        most = np.maximum(-np.asarray(worst, dtype=float), 1e-12)
        gains = np.maximum(np.asarray(values, dtype=float) / most, -1.0)
        with np.errstate(divide="ignore"):  # the boldest can lose everything
            self._logs += np.log1p(self._fractions * gains)

    def log(self) -> Array:
        """Return the logarithm of the wealth, of the tests' shape."""
        largest = self._logs.max(axis=0)
        # The less bold never stake all, so the largest is finite.
        found: Array = largest + np.log(np.exp(self._logs - largest).sum(axis=0))
        return found


class MeanEvidence:
    """Evidence that the mean of a contrast is above zero.

    Args:
        contrast: what is positive where the claim holds.
        low: the least return possible.
        high: the largest.
    """

    def __init__(self, contrast: Contrast, low: float, high: float) -> None:
        self._contrast, self._worst = contrast, contrast.least(low, high)
        self._wealth = Wealth()

    def add(self, pruned: float, dense: float) -> None:
        """Take in the returns of one pair of episodes."""
        self._wealth.bet(self._contrast.at(pruned, dense), self._worst)

    def log(self) -> float:
        """Return the logarithm of the evidence: that of 20 stands for 95 % confidence."""
        return float(self._wealth.log())
