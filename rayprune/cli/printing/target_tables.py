"""What people read of exported files on targets: a table, and how its figures are to be read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from rayprune.cli.printing.tables import count

_TEXTS = ("file", "target")
_TESTED = {True: "passed", False: "FAILED", None: ""}


def target_table(measured: Sequence[Mapping[str, Any]]) -> Table:
    """Return a row for each file on each target, without columns in which no target has a figure.

    Args:
        measured: `Measurement.to_dict`, with the ``file``.
    """
    rows = [_row(one) for one in measured]
    kept = [name for name in rows[0] if any(row[name] for row in rows)]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in kept:
        # Where it is narrow, names go on in another line, and figures stay whole.
        if name in _TEXTS:
            table.add_column(name, overflow="fold", min_width=8)
        else:
            table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*(row[name] for name in kept))
    return table


def target_lines(measured: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the notes, each once, and the tools."""
    several = len({one["target"] for one in measured}) > 1
    notes: dict[str, None] = {}
    for one in measured:
        where = f"{one['target']}: " if several else ""
        notes.update(dict.fromkeys(f"Note           {where}{note}" for note in one["notes"]))
    yield from notes
    tools = {tool: None for one in measured for tool in one["tools"].values()}
    yield from (f"Tool           {tool}" for tool in tools)


def _row(one: Mapping[str, Any]) -> dict[str, str]:
    latency = one["latency_us"] or {}
    return {
        "file": Path(one["file"]).name,
        "target": one["target"],
        "flash\n[B]": _whole(one["flash_bytes"]),
        "RAM\n[B]": _whole(one["ram_bytes"]),
        "instruc-\ntions": _whole(one["instructions"]),
        "median\n[us]": _tenths(latency.get("p50")),
        "p99\n[us]": _tenths(latency.get("p99")),
        "energy\n[uJ]": _tenths(one["energy_uj"]),
        "self-\ntest": _TESTED[one["self_test"]],
    }


def _whole(figure: int | None) -> str:
    return "" if figure is None else count(figure)


def _tenths(figure: float | None) -> str:
    return "" if figure is None else f"{figure:,.1f}"
