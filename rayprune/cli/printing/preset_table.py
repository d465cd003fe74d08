"""The presets as a table: what each is for, by field."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from rayprune.presets import presets


def preset_rows() -> list[dict[str, str]]:
    """Return name, description, folder and path of each preset."""
    return [
        {
            "name": name,
            "description": purpose(path),
            "folder": path.parent.name,
            "path": str(path),
        }
        for name, path in presets().items()
    ]


def preset_table(rows: Sequence[dict[str, str]]) -> Table:
    """Return the presets for people, under the names of their folders; it fits the terminal."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("name", overflow="fold")  # a name is of no use without its end
    table.add_column("what it is")
    folder = ""
    for row in rows:
        if row["folder"] != folder:
            folder = row["folder"]
            table.add_row(Text(folder, style="bold"))
        table.add_row(f"  {row['name']}", row["description"])
    return table


def purpose(path: Path) -> str:
    """Return the first line of a preset's header."""
    first, *_ = [*path.read_text(encoding="utf-8").splitlines(), ""]
    return first.lstrip("# ") if first.startswith("#") else ""
