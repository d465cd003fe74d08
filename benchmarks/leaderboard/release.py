"""The policies' files as one archive, for a release: each held against the hash in its row."""

from __future__ import annotations

import hashlib
import io
import json
import sys
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.commands import ROOT
from benchmarks.leaderboard.cells import Cell, cell_of, rows
from benchmarks.leaderboard.making import FILE
from benchmarks.leaderboard.tasks import TASKS
from rayprune.tracking.record import write_atomic

ARCHIVE: Final = ROOT / "runs" / "leaderboard-policies.zip"
MANIFEST: Final = "policies.json"
_FIXED: Final = (1980, 1, 1, 0, 0, 0)
"""Of every entry: the same policies are the same bytes."""

Row = Mapping[str, Any]


def write(results: Path, runs: Path, out: Path) -> int:
    """Write the archive and tell what isn't in it; return the exit code.

    Args:
        results: the rows' folder.
        runs: the runs' folder.
        out: the archive's path.
    """
    scored = [row for row in rows([*TASKS], results) if "file" in row]
    found = [row for row in scored if _is_that_of(row, runs)]
    if not found:
        print(
            f"No file in {runs} is that of a row in {results}: nothing to release. Run cells first "
            "(`python -m benchmarks.leaderboard run`), or name their folder with `--runs`.",
            file=sys.stderr,
        )
        return 1
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out, _archive(found, runs))
    print(f"{out}: {len(found)} policies, {out.stat().st_size / 1e6:.1f} MB.")
    _tell_missing([row for row in scored if row not in found])
    return 0


def _archive(found: Iterable[Row], runs: Path) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        _add(archive, MANIFEST, json.dumps([_entry(row) for row in found], indent=1) + "\n")
        for row in found:
            source = _source(cell_of(row), runs)
            for file in (source, source.with_suffix(".h")):
                _add(archive, file.relative_to(runs).as_posix(), file.read_text(encoding="utf-8"))
    return held.getvalue()


def _is_that_of(row: Row, runs: Path) -> bool:
    file = _source(cell_of(row), runs)
    return file.is_file() and _sha256(file) == row["file"]["sha256"]


def _source(cell: Cell, runs: Path) -> Path:
    return runs / cell.name / FILE


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _entry(row: Row) -> dict[str, Any]:
    """Return what the archive says of a policy."""
    cell = cell_of(row)
    return {
        "file": f"{cell.name}/{FILE}",
        **cell.key,
        "return": row["score"]["mean"],
        "episodes": row["score"]["episodes"],
        "weights": row["actor"]["nonzero"],
        **{key: row["file"][key] for key in ("sha256", "weights_sha256")},
    }


def _add(archive: zipfile.ZipFile, name: str, text: str) -> None:
    entry = zipfile.ZipInfo(name, _FIXED)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    archive.writestr(entry, text)


def _tell_missing(left: Iterable[Row]) -> None:
    """Say which rows have no file here, and what makes it."""
    names = [cell_of(row) for row in left]
    if names:
        print(
            f"{len(names)} rows have no file in this folder, or another one than they tell, and "
            f"are left out. The first: {names[0].name}. Its row's `commands` make it again.",
            file=sys.stderr,
        )
