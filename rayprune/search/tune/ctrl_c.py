"""Ctrl-C while Tune trains: noted, where Tune's trials say nothing of it, and given back."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class CtrlC:
    """A context around ``Tuner.fit()`` that tells whether a signal ended it.

    Tune takes SIGINT, stops, and calls the trials that it ends terminated, as those that are over.
    At the first signal it gives SIGINT back to whom it had it from, and without one never does
    (Ray 2.60, tune.py:215), so that the next Ctrl-C would be lost. Outside the main thread, where
    Tune takes no signal either, nothing is noted.
    """

    def __init__(self) -> None:
        # One object: each look at a method makes another.
        self._own = self._pass_on
        self._before: Any = None

    @property
    def ended_it(self) -> bool:
        """Whether a signal ended what Tune did; to be asked once it has returned."""
        return self._before is not None and signal.getsignal(signal.SIGINT) is self._own

    def __enter__(self) -> CtrlC:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._own)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        if callable(self._before):
            self._before(number, frame)
