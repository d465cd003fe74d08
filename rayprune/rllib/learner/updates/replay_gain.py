"""Whether replaying gradients saves more time than it takes to see that a recording still holds.

What replaying saves is Python's share of a minibatch, about a millisecond; what it costs is one
minibatch computed twice whenever recordings are distrusted. Where a minibatch takes 100 ms, and few
of them lie between two such times, it costs more. Gradients are the same to the bit either way.

Times are this thread's own on the processor: by the clock, whatever else a machine does decides.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from typing import Final

MEASURED: Final = 2
"""Minibatches computed twice before it is judged; the shortest times count."""

PAUSE: Final = 100
"""Rounds without replaying, after which it is measured anew: networks shrink while they train."""


class ReplayGain:
    """Weighs one Learner's replays against what they cost."""

    def __init__(self) -> None:
        self._pause = 0
        self.forget()

    def forget(self) -> None:
        """Measure anew: what was measured is another network's."""
        self._computing = self._replaying = inf
        self._compared = self._replayed = 0

    def begin_round(self) -> None:
        """Count a time at which recordings are distrusted."""
        self._pause = max(self._pause - 1, 0)
        if self._loses():
            self._pause = PAUSE
            self.forget()

    @property
    def pauses(self) -> bool:
        """Whether minibatches are to be computed as RLlib does, and nothing is to be recorded."""
        return self._pause > 0

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Measure how long RLlib's way takes."""
        start = time.thread_time()
        yield
        self._computing = min(self._computing, time.thread_time() - start)

    @contextmanager
    def comparing(self) -> Iterator[None]:
        """Measure how long a recording takes that is run beside RLlib's way."""
        start = time.thread_time()
        yield
        self._replaying = min(self._replaying, time.thread_time() - start)
        self._compared += 1

    def count_replay(self) -> None:
        """Count a minibatch that was replayed alone."""
        self._replayed += 1

    def _loses(self) -> bool:
        saved = self._replayed * (self._computing - self._replaying)
        return self._compared >= MEASURED and saved < self._compared * self._replaying
