"""What people read of a certificate: the episodes as they are played, then the verdict."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table

from rayprune.cli.printing.tables import percent
from rayprune.cli.printing.terminal_reporter import SECONDS_BETWEEN_LINES, number


def certificate_table(result: Mapping[str, Any]) -> Table:
    """Return what a person reads when it is decided."""
    table = Table(
        title=f"{result['verdict'].capitalize()} after {result['pairs']} pairs of episodes",
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    table.add_column("")
    for name in ("dense", "pruned", "difference", "margin", "would show", "p"):
        table.add_column(name, justify="right")
    worst = f"mean of the worst {100 * result['settings']['tail']:g} %"
    for key, name in (("mean", "mean return"), ("tail", worst)):
        one = result[key]
        figures = [number(one[part]) for part in ("dense", "pruned", "difference", "margin")]
        least = _margin(one["least_margin"], result["settings"]["absolute"])
        table.add_row(name, *figures, least, f"{one['p']:.2g}")
    table.caption, table.caption_justify = result["reason"], "left"
    return table


def certificate_lines(result: Mapping[str, Any]) -> list[str]:
    """Return what else there is to say: how alike the policies act."""
    close, parted = result["closeness"], result["divergence"]
    lines = []
    if close["agreement"] is not None:
        lines.append(
            f"Same actions   {percent(close['agreement'])} on {close['states']:,} states of the "
            "dense policy"
        )
    if close["action_difference"] is not None:
        lines.append(f"Actions differ by {close['action_difference']:.4g} on average")
    if parted["median"] is not None:
        lines.append(
            f"Episodes part  {percent(parted['diverged'])} of them, half by step "
            f"{parted['median']:g}, the first at {parted['first']}"
        )
    return lines


class TerminalCertifyReporter:
    """A `CertifyReporter` for people: a live line, or plain lines off a terminal.

    Args:
        console: where to write; whether it is a terminal decides the form.
        clock: seconds, monotonic; tests give their own.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._most, self._last_line = 0, -math.inf

    def start(self, most: int) -> None:
        """See `CertifyReporter.start`."""
        self._most = most
        if self._console.is_terminal:
            columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
            self._progress = Progress(*columns, console=self._console)
            self._task = self._progress.add_task("the first round", total=most)
            self._progress.start()

    def round(self, pairs: int, result: Mapping[str, Any]) -> None:
        """See `CertifyReporter.round`."""
        mean, tail = result["mean"], result["tail"]
        text = (
            f"dense {number(mean['dense'])}, pruned {number(mean['pruned'])}; p of the mean "
            f"{mean['p']:.2g}, of the tail {tail['p']:.2g}"
        )
        if self._progress is not None:
            self._progress.update(self._task, completed=pairs, description=text)
        elif self._clock() - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = self._clock()
            self._console.print(f"{pairs} of at most {self._most} pairs: {text}", markup=False)

    def __enter__(self) -> TerminalCertifyReporter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()


def _margin(margin: float | None, absolute: bool) -> str:
    if margin is None:
        return "-"
    return number(margin) if absolute else percent(margin)
