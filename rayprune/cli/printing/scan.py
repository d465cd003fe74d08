"""What people read of a scan of the layers: points as they are measured, then the table."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console
from rich.progress import Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from rayprune.cli.printing.tables import interval, percent
from rayprune.cli.printing.terminal_reporter import SECONDS_BETWEEN_LINES, duration, number


def scan_table(result: Mapping[str, Any]) -> Table:
    """Return what a person reads when a scan is done."""
    suggested = result["suggested"]
    table = Table(title="Sensitivity", title_justify="left", box=None, pad_edge=False)
    for name in ("layer", "judged by", "suggested", "at its last rung"):
        left = name in ("layer", "judged by")
        table.add_column(name, justify="left" if left else "right", overflow="fold")
    for layer in result["layers"]:
        last, by_return = layer["ladder"][-1], layer["measured_by"] == "return"
        shown = interval(last) if by_return else f"{_unexplained(last)} unexplained"
        split = suggested["distribution"][layer["name"]]
        table.add_row(layer["name"], layer["measured_by"].replace("_", " "), percent(split), shown)
    table.caption_justify = "left"
    table.caption = (
        f"unpruned {interval(result['unpruned'])}; all suggested at once, "
        f"{percent(suggested['sparsity'])} sparse: {interval(suggested['together'])}"
    )
    return table


class TerminalScanReporter:
    """A `ScanReporter` for people: a live line, or plain lines off a terminal.

    Args:
        console: where to write; whether it is a terminal decides the form.
        clock: seconds, monotonic; tests give their own.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._total = self._done = self._first = 0
        self._began, self._last_line = 0.0, -math.inf

    def start(self, total: int, done: int) -> None:
        """See `ScanReporter.start`."""
        self._total, self._done, self._first = total, done, done
        self._began = self._clock()
        if self._console.is_terminal:
            self._progress = Progress(
                TextColumn("{task.completed:.0f}/{task.total:.0f}  {task.description}"),
                TimeRemainingColumn(compact=True),
                console=self._console,
            )
            self._task = self._progress.add_task("sensitivity", total=total, completed=done)
            self._progress.start()

    def point(self, row: Mapping[str, Any]) -> None:
        """See `ScanReporter.point`."""
        self._done += 1
        text = _told(row)
        if self._progress is not None:
            self._progress.update(self._task, completed=self._done, description=text)
        elif self._clock() - self._last_line >= SECONDS_BETWEEN_LINES or self._done == self._total:
            self._last_line = self._clock()
            each = (self._clock() - self._began) / (self._done - self._first)
            left = duration(each * (self._total - self._done))
            self._console.print(f"{self._done}/{self._total}  {text}  {left} left", markup=False)

    def __enter__(self) -> TerminalScanReporter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()


def _told(row: Mapping[str, Any]) -> str:
    name = "all suggested" if row["sparsity"] is None else row["layer"]
    at = percent(row["reached"] if row["sparsity"] is None else row["sparsity"])
    if row["iqm"] is None:
        return f"{name} at {at}: {_unexplained(row)} of the values unexplained"
    return f"{name} at {at}: return {number(row['iqm'])}"


def _unexplained(row: Mapping[str, Any]) -> str:
    value = row["value_unexplained"]
    return "> 1000 %" if value is not None and value > 10 else percent(value)
