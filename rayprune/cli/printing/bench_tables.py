"""What people read of a benchmark: its stages as they come, then tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from rayprune.cli.printing.tables import count, percent
from rayprune.cli.printing.terminal_reporter import number


def bench_tables(result: Mapping[str, Any]) -> list[Table]:
    """Return a table for each batch size and number of threads, and one of the files' sizes."""
    places = dict.fromkeys((row["threads"], row["batch"]) for row in result["rows"])
    return [*(_table(result, *place) for place in places), _sizes(result)]


def bench_lines(result: Mapping[str, Any]) -> list[str]:
    """Return what the tables don't show: sizes, and what could not be measured."""
    lines = []
    for target in result["targets"]:
        sizes = [f"{name} {count(size)}" for name, size in target["parameters"].items() if size]
        if sizes:
            lines.append(f"Parameters     {', '.join(sizes)} ({target['target']})")
        lines += target["notes"]
    return lines


class Stages:
    """A `BenchReporter` for people: what is going on, and rows as they are measured.

    Args:
        console: where to write; on a terminal the stage is a spinner's, else a line.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status = console.status("") if console.is_terminal else None

    def stage(self, text: str) -> None:
        """See `BenchReporter.stage`."""
        if self._status is not None:
            self._status.update(text)
        else:
            self._console.print(text, markup=False)

    def row(self, text: str) -> None:
        """See `BenchReporter.row`."""
        self._console.print(text, markup=False)

    def __enter__(self) -> Stages:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()


def _table(result: Mapping[str, Any], threads: int, batch: int) -> Table:
    table = Table(
        title=f"Batch {batch}, {threads} thread{'s' if threads > 1 else ''}",
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    deadline = result["settings"]["deadline_ms"]
    columns = ["", "median µs", "p99 µs", "same runtime", "RLlib"]
    columns += [] if deadline is None else [f"> {deadline:g} ms"]
    for name in columns:
        table.add_column(name, justify="right" if name else "left")
    several = len(result["targets"]) > 1
    for row in result["rows"]:
        if (row["threads"], row["batch"]) == (threads, batch):
            rllib = row["speed_up"]["forward_inference"]
            cells = [_name(row, several), number(row["median_us"]), number(row["p99_us"])]
            cells += [_ratio(row["speed_up"]["same_runtime"])]
            cells += ["-" if rllib is None else f"{rllib['ratio']:.1f}"]
            cells += [] if deadline is None else [percent(row["missed"])]
            table.add_row(*cells)
    (control,) = (
        one for one in result["controls"] if (one["threads"], one["batch"]) == (threads, batch)
    )
    table.caption_justify = "left"
    table.caption = f"noise (an arm against itself): {_ratio(control)}"
    return table


def _sizes(result: Mapping[str, Any]) -> Table:
    table = Table(title="Files", title_justify="left", box=None, pad_edge=False)
    table.add_column("")
    batches = sorted({row["batch"] for row in result["rows"]})
    for name in ("KiB", *(f"peak MiB, batch {batch}" for batch in batches)):
        table.add_column(name, justify="right")
    files: dict[str, dict[int, Mapping[str, Any]]] = {}
    for row in result["rows"]:
        if row["file_bytes"] is not None:
            name = _name(row, len(result["targets"]) > 1)
            files.setdefault(name, {})[row["batch"]] = row
    for name, rows in files.items():
        peaks = [_size(rows[batch]["peak_memory_bytes"], 20) for batch in batches]
        table.add_row(name, _size(rows[batches[0]]["file_bytes"], 10), *peaks)
    table.caption_justify = "left"
    table.caption = (
        "Same runtime: times as fast as the first policy there, which is what pruning gains. "
        "RLlib: as its forward_inference, which has the export's gain in it, too."
    )
    return table


def _name(row: Mapping[str, Any], several: bool) -> str:
    # RLlib's own call is of the policy as it is, which needs no saying; a file is its own policy.
    whole = row["runtime"] == "forward_inference"
    parts = [row["target"]] * several + [row["policy"]] * (not whole) + [row["runtime"]]
    return " ".join(dict.fromkeys(parts))


def _ratio(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "-"
    low, high = found["ci95"]
    return f"{found['ratio']:.2f} [{low:.2f}, {high:.2f}]"


def _size(size: int | None, bits: int) -> str:
    return "-" if size is None else f"{size / 2**bits:,.1f}"
