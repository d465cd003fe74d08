"""Which files of a run or a sweep its readers need, where they have to be fetched from a store."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Final

from rayprune.storage.copies import fetched

_CHECKPOINTS: Final = "checkpoints/"
_SUMMARY: Final = "summary.json"
_META: Final = "rayprune.json"
"""Without it a checkpoint of ours isn't whole (`rayprune.rllib.checkpoints.files`)."""
_NOT_REPORTED: Final = {"checkpoints", "tune", "tune-state", "wandb", "tensorboard"}


def fetch_record(source: str | Path) -> Path:
    """Return the directory of a run or a sweep: its records and summaries, without checkpoints.

    Args:
        source: a path, which is given back as it is, or a URL.

    Raises:
        StorageError: nothing is there, or it can't be read.
    """
    return fetched(source, _records)


def fetch_checkpoint(source: str | Path) -> Path:
    """Return a checkpoint's directory, or a run's with the checkpoint that stands for it.

    Args:
        source: a path, which is given back as it is, or a URL.

    Raises:
        StorageError: nothing is there, or it can't be read.
    """
    return fetched(source, _checkpoint)


def _records(paths: Collection[str], copy: Path) -> set[str]:
    return {path for path in paths if not _NOT_REPORTED.intersection(path.split("/")[:-1])}


def _checkpoint(paths: Collection[str], copy: Path) -> set[str]:
    top = {path for path in paths if "/" not in path}
    if not any(path.startswith((_CHECKPOINTS, "trials/")) for path in paths):
        return set(paths)  # a checkpoint itself
    if _SUMMARY in top and not (copy / _SUMMARY).is_file():
        return top
    chosen = _chosen(paths, copy)
    return top | {path for path in paths if chosen and path.startswith(f"{chosen}/")}


def _chosen(paths: Collection[str], run: Path) -> str | None:
    """Return the checkpoint that a run's summary names, or its newest."""
    if (run / _SUMMARY).is_file():
        named = json.loads((run / _SUMMARY).read_text(encoding="utf-8")).get("checkpoint")
        if named is not None:
            return str(named)
    whole = [
        path.split("/")[1]
        for path in paths
        if path.startswith(_CHECKPOINTS) and path.endswith(f"/{_META}")
    ]
    numbered = [name for name in whole if name.isdecimal()]
    return f"{_CHECKPOINTS}{max(numbered, key=int)}" if numbered else None
