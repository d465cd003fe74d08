"""How long all processes have worked on a directory that is gone on with after each of them."""

from __future__ import annotations

from pathlib import Path

from rayprune.tracking.record import read_rows


def seconds_before(record: Path) -> float:
    """Return how long the processes before this one have worked, what was between them left out.

    A process that was killed in a training has written no row of the record since that began; but
    each iteration left one in the training's own files.

    Args:
        record: the file whose rows have a ``time_s``, seconds that all processes had worked until
            then; each process writes one when it begins. The other records are below its folder.
    """
    if not record.is_file():
        return 0.0
    told = max((float(row.get("time_s", 0.0)) for row in read_rows(record)), default=0.0)
    last_sign = max(each.stat().st_mtime for each in record.parent.rglob("*.jsonl"))
    return told + max(0.0, last_sign - record.stat().st_mtime)
