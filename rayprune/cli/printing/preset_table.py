"""The presets as a table: what each is for, by field."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.table import Table
from rich.text import Text

from rayprune.errors import first_line
from rayprune.presets import presets

_MEASURED: Final = re.compile(r"^# Measured: return (.*)$", re.M)


def preset_rows() -> list[dict[str, str]]:
    """Return name, description, measured returns, folder and path of each preset."""
    return [
        {
            "name": name,
            "description": purpose(path),
            "measured": measured(path),
            "folder": path.parent.name,
            "path": str(path),
        }
        for name, path in presets().items()
    ]


def preset_table(rows: Sequence[dict[str, str]]) -> Table:
    """Return the presets for people, under the names of their folders; it fits the terminal."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("name", no_wrap=True)  # a name is of no use without its end
    table.add_column("what it is", ratio=3)
    table.add_column("return, measured", ratio=2)
    folder = ""
    for row in rows:
        if row["folder"] != folder:
            folder = row["folder"]
            table.add_row(Text(folder, style="bold"))
        earned = row["measured"] or Text("not run here", style="dim")
        table.add_row(f"  {row['name']}", row["description"], earned)
    return table


def measured(path: Path) -> str:
    """Return what a preset's header says that it earned, or an empty text."""
    said = _MEASURED.search(_text(path))
    return said[1] if said else ""


def purpose(path: Path) -> str:
    """Return the first line of a preset's header."""
    first, *_ = [*_text(path).splitlines(), ""]
    return first.lstrip("# ") if first.startswith("#") else ""


def _text(path: Path) -> str:
    """Return what a preset says; a user's own that can't be read must not hide the others."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        return f"# can't be read: {first_line(error)}"
