"""Progress for people: a live bar on a terminal, plain lines everywhere else."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from numbers import Real
from typing import TypeGuard

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

SECONDS_BETWEEN_LINES = 5.0


class TerminalReporter:
    """A `rayprune.tracking.reporter.Reporter` on a console.

    Args:
        console: where to write; whether it is a terminal decides the form.
        clock: seconds, monotonic; tests give their own.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._name = ""
        self._total: int | None = None
        self._first = (0.0, 0)
        self._last_line = -math.inf
        self._return: object = None

    def start(self, name: str, total_steps: int | None, done_steps: int) -> None:
        """See `Reporter.start`."""
        self.close()
        self._name, self._total = name, total_steps
        self._first = (self._clock(), done_steps)
        self._last_line = -math.inf
        self._return = None
        if self._console.is_terminal:
            self._progress = _live(self._console)
            self._task = self._progress.add_task(
                name, total=total_steps, completed=done_steps, details=""
            )
            self._progress.start()

    def iteration(self, row: Mapping[str, object]) -> None:
        """See `Reporter.iteration`."""
        if _is_finite(row.get("return_mean")):
            self._return = row["return_mean"]  # iterations in which no episode ends have none
        details = f"return {number(self._return)}  sparsity {number(row.get('sparsity'), 3)}"
        step = _step(row)
        if self._progress is not None:
            self._progress.update(self._task, completed=step, details=details)
        elif self._clock() - self._last_line >= SECONDS_BETWEEN_LINES or step == self._total:
            self._last_line = self._clock()
            of_total = f"/{self._total:,}" if self._total else ""
            self._line(f"{self._name}: step {step:,}{of_total}  {details}{self._left(step)}")

    def evaluation(self, row: Mapping[str, object]) -> None:
        """See `Reporter.evaluation`."""
        self._line(
            f"{self._name}: step {_step(row):,}  evaluated on {row.get('episodes')} episodes: "
            f"IQM {number(row.get('iqm'))}, mean {number(row.get('mean'))}"
        )

    def message(self, text: str) -> None:
        """See `Reporter.message`."""
        self._line(text)

    def close(self) -> None:
        """See `Reporter.close`."""
        progress, self._progress = self._progress, None
        if progress is not None:
            progress.stop()

    def _line(self, text: str) -> None:
        # While a live bar is shown, its console prints above it.
        self._console.print(text, markup=False)

    def _left(self, step: int) -> str:
        """Return the time left, by the speed since this process began."""
        began, first_step = self._first
        elapsed = self._clock() - began
        if self._total is None or step <= first_step or elapsed <= 0:
            return ""
        seconds = max(self._total - step, 0) * elapsed / (step - first_step)
        return f"  {duration(seconds)} left"


def number(value: object, digits: int = 1) -> str:
    """Return a number as text, and a dash where there is none.

    >>> number(12.345), number(float("nan")), number(None), number(0.8996, 3)
    ('12.3', '-', '-', '0.900')
    """
    return f"{value:.{digits}f}" if _is_finite(value) else "-"


def _is_finite(value: object) -> TypeGuard[float]:
    return isinstance(value, Real) and math.isfinite(value)


def duration(seconds: float) -> str:
    """Return a time as people say it.

    >>> duration(8), duration(75), duration(3700)
    ('8 s', '1:15 min', '1:01 h')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02} h"


def _step(row: Mapping[str, object]) -> int:
    # Offline algorithms sample no steps.
    step = row.get("env_steps") or row.get("updates")
    return int(float(step)) if isinstance(step, Real) else 0


def _live(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TextColumn("{task.completed:,.0f} steps  {task.fields[details]}"),
        TimeRemainingColumn(compact=True),
        console=console,
    )
