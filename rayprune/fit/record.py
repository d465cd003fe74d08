"""What a fit has done, a row a step, on disk before it goes on; it is resumed from there."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from rayprune.tracking.record import Record, read_rows
from rayprune.tracking.working_time import seconds_before

RECORD_FILE: Final = "fit.jsonl"
BEGAN: Final = "began"
"""A process goes to work; the first, or one that goes on."""
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

    Each row has a ``time_s``: the seconds that all processes have worked until then.

    Args:
        out: the fit's directory.
        began: when this process went to work, by `time.monotonic`.
    """

    def __init__(self, out: Path, began: float) -> None:
        path = out / RECORD_FILE
        self._before, self._began = seconds_before(path), began
        self._record = Record.open(path)
        self._rows = read_rows(path)
        self.append(BEGAN, {})

    @property
    def seconds(self) -> float:
        """Seconds that all processes have worked, this one until now."""
        return self._before + time.monotonic() - self._began

    def rows(self, event: str) -> list[dict[str, Any]]:
        """Return the rows of one kind, oldest first."""
        return [row for row in self._rows if row["event"] == event]

    def append(self, event: str, row: Mapping[str, Any]) -> dict[str, Any]:
        """Write a row; return it as `rows` does."""
        told = {"event": event, **row, "time_s": round(self.seconds, 3)}
        self._record.append(told)
        self._rows.append(told)
        return told

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
