"""Running means and variances that several processes gather, without counting anything twice."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Count, mean and sum of squared deviations of vectors, all in float64.

    >>> all_four = Moments.of(np.array([[1.0], [2.0]])) + Moments.of(np.array([[3.0], [6.0]]))
    >>> all_four.count, all_four.mean.tolist(), all_four.variance.tolist()
    (4, [3.0], [3.5])
    """

    count: int
    mean: Array
    squares: Array

    @classmethod
    def none(cls, shape: tuple[int, ...]) -> Moments:
        """Return the moments of no observations."""
        return cls(0, np.zeros(shape), np.zeros(shape))

    @classmethod
    def of(cls, rows: Array) -> Moments:
        """Return those of ``rows``, shape ``(n, *shape)``.

        A row with a NaN or infinity is left out: it would stay in the statistics for good.
        """
        finite = np.isfinite(rows).reshape(len(rows), -1).all(axis=1)
        if not finite.all():
            rows = rows[finite]
        if not len(rows):
            return cls.none(rows.shape[1:])
        mean = rows.mean(axis=0)
        return cls(len(rows), mean, np.square(rows - mean).sum(axis=0))

    def __add__(self, other: Moments) -> Moments:
        """Return those of both, by Chan, Golub & LeVeque 1983."""
        if not (self.count and other.count):
            return self if self.count else other
        count = self.count + other.count
        delta = other.mean - self.mean
        between = np.square(delta) * (self.count * other.count / count)
        return Moments(
            count,
            self.mean + delta * (other.count / count),
            self.squares + other.squares + between,
        )

    @property
    def variance(self) -> Array:
        """The population variance; 1 as long as fewer than two have been seen."""
        return self.squares / self.count if self.count > 1 else np.ones_like(self.squares)


class Shares:
    """One process's view of the moments that several gather.

    Each process adds to a share of its own, known by a name that no other process has. Merging
    takes the larger of two versions of a share, so that a state that arrives twice, late, or from a
    process that has died counts once. RLlib's asynchronous algorithms do all three.

    An *epoch* ends when all shares so far are made into one (`consolidate`); what a process still
    sends of an earlier epoch has been counted.

    >>> driver, one, two = Shares(()), Shares(()), Shares(())
    >>> one.add(np.array([1.0, 2.0])); two.add(np.array([3.0, 6.0]))
    >>> states = [one.get_state(), two.get_state(), one.get_state()]
    >>> driver.set_state(driver.merged(states))
    >>> driver.total.count, float(driver.total.mean)
    (4, 3.0)
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.frozen = False
        """Whether nothing is added any more, here and wherever this state goes."""
        self._epoch = 0
        self._base = Moments.none(shape)
        self._parts: dict[str, Moments] = {}
        self._own = uuid.uuid4().hex
        self.total = self._base
        """What is known here."""

    def add(self, rows: Array) -> None:
        """Add what was seen here, shape ``(n, *shape)``."""
        if self.frozen:
            return
        seen = Moments.of(rows)
        own = self._parts.get(self._own)
        self._parts[self._own] = seen if own is None else own + seen
        self.total = self.total + seen

    def merged(self, states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the state in which everything counts that is known here or in ``states``."""
        parts = dict(self._parts)
        for state in states:
            if state and state["epoch"] == self._epoch:
                for name, held in state["parts"].items():
                    part = Moments(*held)
                    if name not in parts or part.count > parts[name].count:
                        parts[name] = part
        return self._state(parts)

    def consolidate(self) -> None:
        """End the epoch: make all shares into one, from the state alone.

        From the state, so that a process that goes on and one that was restored hold the same bits.
        """
        self._base, self._parts = self._combined(), {}
        self._epoch += 1
        self._own, self.total = uuid.uuid4().hex, self._base

    def restart_from(self, state: Mapping[str, Any]) -> None:
        """Know what ``state`` knows and nothing else, in an epoch that no process is in yet."""
        before, self._parts = self._epoch, {}
        self.set_state(state)
        self._epoch = max(before, self._epoch)
        self.consolidate()

    def get_state(self) -> dict[str, Any]:
        """Return all that is known here, as plain values."""
        return self._state(self._parts)

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Know what ``state`` knows; what was added here since it was gathered is kept.

        A state that this process has no share in is another run's, or a restored one.
        """
        if not state:
            return
        own = self._parts.get(self._own)
        self._epoch, self.frozen = state["epoch"], state["frozen"]
        self._base = Moments(*state["base"])
        self._parts = {name: Moments(*held) for name, held in state["parts"].items()}
        known = self._parts.get(self._own)
        if known is not None and own is not None and own.count > known.count:
            self._parts[self._own] = own
        elif known is None:
            self._own = uuid.uuid4().hex
        self.total = self._combined()

    def _combined(self) -> Moments:
        # In the order in which they came, which the state keeps: sums of floats depend on it.
        total = self._base
        for part in self._parts.values():
            total = total + part
        return total

    def _state(self, parts: Mapping[str, Moments]) -> dict[str, Any]:
        return {
            "epoch": self._epoch,
            "frozen": self.frozen,
            "base": _plain(self._base),
            "parts": {name: _plain(part) for name, part in parts.items()},
        }


def _plain(moments: Moments) -> tuple[int, Array, Array]:
    return moments.count, moments.mean, moments.squares
