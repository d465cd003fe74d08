"""One line that changes in place on a terminal, or plain lines now and then elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import Progress, ProgressColumn, TaskID

from rayprune.cli.printing.terminal_reporter import SECONDS_BETWEEN_LINES

if TYPE_CHECKING:
    from typing_extensions import Self  # in typing from Python 3.11 on


class LiveLine:
    """Counts what is done of a total, as a context manager.

    Args:
        console: where to write; whether it is a terminal decides the form.
        clock: seconds, monotonic; tests give their own.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._last_line = -math.inf

    def begin(self, text: str, total: int, done: int, *columns: ProgressColumn) -> None:
        """Show the line on a terminal; elsewhere nothing is written yet."""
        if self._console.is_terminal:
            self._progress = Progress(*columns, console=self._console)
            self._task = self._progress.add_task(text, total=total, completed=done)
            self._progress.start()

    def show(self, done: int, text: str, plain: Callable[[], str], *, last: bool = False) -> None:
        """Change the line, or write ``plain()`` if the last one is long ago or it is the end."""
        if self._progress is not None:
            self._progress.update(self._task, completed=done, description=text)
        elif last or self._clock() - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = self._clock()
            self._console.print(plain(), markup=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()
