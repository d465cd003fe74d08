"""What a training loop tells a person while it runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, Protocol

PACE_S: Final = 10.0
"""Seconds between two sentences on something that lasts."""


class Reporter(Protocol):
    """Told of a run's progress; `rayprune.cli.printing.terminal_reporter` shows it."""

    def start(self, name: str, total_steps: int | None, done_steps: int) -> None:
        """A run starts, or goes on.

        Args:
            name: the run's name; the dense twin's run has its own.
            total_steps: env steps (updates, offline) at which it ends, None when that isn't known.
            done_steps: those already done by a run that is resumed.
        """

    def iteration(self, row: Mapping[str, object]) -> None:
        """An iteration ended.

        Args:
            row: ``env_steps``, ``return_mean`` (None or NaN where no episode ended),
                ``sparsity``, ``target_sparsity`` and ``time_s``; more keys do no harm.
        """

    def evaluation(self, row: Mapping[str, object]) -> None:
        """The policy was measured: ``env_steps``, ``mean``, ``iqm`` and ``episodes``."""

    def message(self, text: str) -> None:
        """One sentence for the person who watches."""

    def close(self) -> None:
        """The run has ended, well or not; may be called twice."""


class NullReporter:
    """Tells nobody."""

    def start(self, name: str, total_steps: int | None, done_steps: int) -> None:
        """See `Reporter.start`."""

    def iteration(self, row: Mapping[str, object]) -> None:
        """See `Reporter.iteration`."""

    def evaluation(self, row: Mapping[str, object]) -> None:
        """See `Reporter.evaluation`."""

    def message(self, text: str) -> None:
        """See `Reporter.message`."""

    def close(self) -> None:
        """See `Reporter.close`."""


_listener: ContextVar[Callable[[str], None] | None] = ContextVar("listener", default=None)


@contextmanager
def telling(listener: Callable[[str], None]) -> Iterator[None]:
    """Let what lasts inside the block, however deep, say how far it is."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def tell(text: str) -> None:
    """Say a sentence to whoever listens."""
    listener = _listener.get()
    if listener is not None:
        listener(text)


class Pace:
    """Tells of something that lasts, now and then.

    >>> with telling(print):
    ...     pace = Pace(clock=iter([0.0, 5.0, 11.0, 12.0]).__next__)
    ...     for step in range(3):
    ...         pace.tell(lambda: f"step {step}")
    step 1
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = clock()

    def tell(self, text: Callable[[], str]) -> None:
        """Say what ``text`` returns, if the last time was a while ago."""
        now = self._clock()
        if now - self._last >= PACE_S:
            self._last = now
            tell(text())
