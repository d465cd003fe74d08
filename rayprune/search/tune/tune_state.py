"""Tune's own state of an experiment, kept whole for a driver that is killed.

Tune (Ray 2.60) copies its state into the sweep's directory in a thread, over the file that is
there, while it may be writing the next one (train/_internal/syncer.py). A driver killed in these
milliseconds leaves half a file, from which nothing can be restored. So the last whole one is kept
beside it.
"""

from __future__ import annotations

import json
import pickle
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from rayprune.tracking.record import write_atomic

KEPT_DIRECTORY: Final = ".state"
"""In Tune's directory, where that is on this machine: the last whole files."""
TUNER_FILE: Final = "tuner.pkl"
_READERS: Final[Mapping[str, Callable[[bytes], object]]] = {
    "experiment_state-*.json": json.loads,
    "basic-variant-state-*.json": pickle.loads,  # whatever its name says
    "search_gen_state-*.json": pickle.loads,
    "searcher-state-*.pkl": pickle.loads,
}
_STATE: Final = "experiment_state-*.json"
_SEARCHERS: Final = (
    ("basic-variant-state-*.json",),
    ("search_gen_state-*.json", "searcher-state-*.pkl"),
)
"""What there is of the searcher: Tune's own, or another with its generator of trials."""
_EVERY_S: Final = 0.5
"""At most so often: reading a state of thousands of trials takes its time."""


class StateKeeper:
    """Keeps the newest state of one experiment."""

    def __init__(self, kept: Path) -> None:
        """Begin.

        Args:
            kept: where the last whole files are to be.
        """
        self._kept = kept
        self._seen: dict[str, int] = {}
        self._next = 0.0

    def keep(self, held: Path) -> None:
        """Keep copies of the newest files that are whole and haven't been kept yet.

        Args:
            held: where Tune writes them.
        """
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _EVERY_S
        for pattern in _READERS:
            newest = max(held.glob(pattern), default=None)
            if newest is not None and self._seen.get(newest.name) != newest.stat().st_mtime_ns:
                self._keep(newest, pattern)

    def _keep(self, newest: Path, pattern: str) -> None:
        changed, content = newest.stat().st_mtime_ns, newest.read_bytes()
        if not _is_whole(content, pattern):
            return
        self._kept.mkdir(exist_ok=True)
        write_atomic(self._kept / newest.name, content)
        for older in set(self._kept.glob(pattern)) - {self._kept / newest.name}:
            older.unlink()
        self._seen[newest.name] = changed


def can_restore(held: Path, kept: Path) -> bool:
    """Whether an experiment is there to go on with; mends it where a killed driver broke it.

    Without a whole state no result has been recorded either, so that a sweep may begin anew.

    Args:
        held: Tune's directory of the experiment.
        kept: where the last whole files are.
    """
    for path, pattern in _files(held):
        if not _is_whole(path.read_bytes(), pattern):
            path.unlink()
    for path, _ in _files(kept):
        if not (held / path.name).exists():
            shutil.copy2(path, held)
    tuner = held / TUNER_FILE
    whole = tuner.is_file() and _is_whole(tuner.read_bytes(), TUNER_FILE)
    if not whole or not any(held.glob(_STATE)):
        return False
    return any(all(any(held.glob(pattern)) for pattern in files) for files in _SEARCHERS)


def _files(directory: Path) -> Iterator[tuple[Path, str]]:
    for pattern in _READERS:
        for path in list(directory.glob(pattern)):
            yield path, pattern


def _is_whole(content: bytes, pattern: str) -> bool:
    reader: Callable[[bytes], object] = _READERS.get(pattern, pickle.loads)
    try:
        reader(content)
    except Exception:  # half a pickle may raise anything
        return False
    return True
