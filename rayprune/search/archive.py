"""The checkpoints that a trial keeps: those that none of its others beats."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from rayprune.search.objectives import Objectives
from rayprune.search.pareto import scattered_subset
from rayprune.tracking.record import to_json, write_atomic

SIZE: Final = 6
"""Checkpoints kept per trial."""

FILE: Final = "archive.json"


class Archive:
    """A trial's results that are on its own front, each with its checkpoint.

    The sweep's front is chosen from all archives: a trial that went on to a sparsity that it could
    not hold, or that was replaced by a clone, has not lost what it held before. Under a constraint
    the same objectives are spread with the return beside them, so that a point just below the
    floor isn't all that is left.
    """

    def __init__(self, home: Path, objectives: Objectives) -> None:
        """Read what is there already.

        Args:
            home: the trial's directory.
            objectives: of the sweep.
        """
        self._home = home
        self._objectives = objectives.unconstrained()
        self._entries = read_entries(home)

    @property
    def entries(self) -> list[dict[str, Any]]:
        """The results, oldest first, with ``rows`` (length of the record) and ``checkpoint``."""
        return list(self._entries)

    def offer(self, result: Mapping[str, Any], rows: int, checkpoint: Path) -> None:
        """Keep a checkpoint if it is on the trial's front; drop what no longer is.

        Args:
            result: what was measured of the policy in it.
            rows: length of the trial's record by then, which names the checkpoint.
            checkpoint: its directory; hard-linked where that is possible.
        """
        name = f"checkpoints/{rows:09d}"
        entry = {**result, "rows": rows, "checkpoint": name}
        kept = self._best([*(e for e in self._entries if e["checkpoint"] != name), entry])
        if entry not in kept:
            return
        copy_tree(checkpoint, self._home / name)
        self._write(kept)

    def go_back_to(self, rows: int) -> None:
        """Forget what was measured after the record had ``rows`` rows: it will be done again."""
        kept = [entry for entry in self._entries if entry["rows"] <= rows]
        if len(kept) < len(self._entries):
            self._write(kept)

    def _best(self, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        members = self._objectives.distinct_front(entries)
        vectors = [self._objectives.vector(entries[i]) for i in members]
        return [entries[members[i]] for i in sorted(scattered_subset(vectors, SIZE))]

    def _write(self, entries: list[dict[str, Any]]) -> None:
        # The list first: a checkpoint that it doesn't name is litter, a name without one is a lie.
        write_atomic(self._home / FILE, to_json(entries, indent=1) + "\n")
        self._entries = entries
        named = {entry["checkpoint"].rpartition("/")[2] for entry in entries}
        for directory in (self._home / "checkpoints").iterdir():
            if directory.name not in named:
                shutil.rmtree(directory, ignore_errors=True)


def read_entries(home: Path) -> list[dict[str, Any]]:
    """Return the results that a trial keeps, oldest first; see `Archive.entries`.

    Args:
        home: the trial's directory.
    """
    path = home / FILE
    held: list[dict[str, Any]] = []
    if path.is_file():
        held = json.loads(path.read_text(encoding="utf-8"))
    return held


def copy_tree(source: Path, target: Path) -> None:
    """Put a copy of a directory at ``target``, whole or not at all; links where they can be."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(source, temporary, copy_function=_link)
    shutil.rmtree(target, ignore_errors=True)
    temporary.rename(target)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)
