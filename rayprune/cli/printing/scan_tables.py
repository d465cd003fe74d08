"""What people read of a scan of the layers: points as they are measured, then the table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.progress import TextColumn, TimeRemainingColumn
from rich.table import Table

from rayprune.cli.printing.live_line import LiveLine
from rayprune.cli.printing.tables import interval, percent
from rayprune.cli.printing.terminal_reporter import duration, number


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


class TerminalScanReporter(LiveLine):
    """A `ScanReporter` for people: a live line, or plain lines off a terminal."""

    _total = _done = _first = 0
    _began = 0.0

    def start(self, total: int, done: int) -> None:
        """See `ScanReporter.start`."""
        self._total, self._done, self._first = total, done, done
        self._began = self._clock()
        counted = TextColumn("{task.completed:.0f}/{task.total:.0f}  {task.description}")
        self.begin("sensitivity", total, done, counted, TimeRemainingColumn(compact=True))

    def point(self, row: Mapping[str, Any]) -> None:
        """See `ScanReporter.point`."""
        self._done += 1
        text = _told(row)
        self.show(self._done, text, lambda: self._line(text), last=self._done == self._total)

    def _line(self, text: str) -> str:
        each = (self._clock() - self._began) / (self._done - self._first)
        left = duration(each * (self._total - self._done))
        return f"{self._done}/{self._total}  {text}  {left} left"


def _told(row: Mapping[str, Any]) -> str:
    name = "all suggested" if row["sparsity"] is None else row["layer"]
    at = percent(row["reached"] if row["sparsity"] is None else row["sparsity"])
    if row["iqm"] is None:
        return f"{name} at {at}: {_unexplained(row)} of the values unexplained"
    return f"{name} at {at}: return {number(row['iqm'])}"


def _unexplained(row: Mapping[str, Any]) -> str:
    value = row["value_unexplained"]
    return "> 1000 %" if value is not None and value > 10 else percent(value)
