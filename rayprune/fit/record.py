"""What a fit has done, a row a step, on disk before it goes on; it is resumed from there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from rayprune.tracking.record import Record, read_rows

RECORD_FILE: Final = "fit.jsonl"
MEASURED: Final = "measured"
"""An untrained candidate: ``candidate``, ``figures``."""
DENSE: Final = "dense"
"""The dense reference: its ``validation`` and ``test`` returns, its ``checkpoint``."""
WAVE: Final = "wave"
"""A population begins: its number ``wave``, the names of its ``candidates``."""
JUDGED: Final = "judged"
"""A trained candidate, exported, measured and tested; see `rayprune.fit.choice`."""


class FitRecord:
    """The rows so far, and the file that further ones go to; a context that closes it.

    Args:
        out: the fit's directory.
    """

    def __init__(self, out: Path) -> None:
        path = out / RECORD_FILE
        self._record = Record.open(path)
        self._rows = read_rows(path)

    def rows(self, event: str) -> list[dict[str, Any]]:
        """Return the rows of one kind, oldest first."""
        return [row for row in self._rows if row["event"] == event]

    def append(self, event: str, row: Mapping[str, Any]) -> None:
        """Write a row."""
        told = {"event": event, **row}
        self._record.append(told)
        self._rows.append(told)

    def __enter__(self) -> FitRecord:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._record.close()


def measured_before(out: Path) -> dict[str, dict[str, float | None]]:
    """Return what a fit has measured of untrained candidates so far, by their names."""
    path = out / RECORD_FILE
    return dict(_measured(path)) if path.is_file() else {}


def _measured(path: Path) -> Iterator[tuple[str, dict[str, float | None]]]:
    for row in read_rows(path):
        if row["event"] == MEASURED:
            yield row["candidate"], row["figures"]
