"""Directories of runs, sweeps and fits, read as they are: finished, failed, or still going on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rayprune import yaml12
from rayprune.errors import ConfigError, InputError, StorageError
from rayprune.tracking.record import read_rows

_FIT_MARK = "fit.yaml"
_SWEEP_MARKS = ("sweep.yaml", "sweep.json", "front.json")


@dataclass(frozen=True, kw_only=True)
class RunFiles:
    """What a run's directory holds."""

    path: Path
    config: dict[str, Any]
    rows: list[dict[str, Any]]
    summary: dict[str, Any] | None


@dataclass(frozen=True, kw_only=True)
class SweepFiles:
    """What a sweep's directory holds."""

    path: Path
    config: dict[str, Any]
    trials: dict[str, RunFiles]
    outcome: dict[str, Any]
    """sweep.json; empty while the sweep goes on."""

    front: dict[str, Any]
    lineage: list[dict[str, Any]] = field(default_factory=list)


def read_all(paths: Sequence[Path]) -> tuple[list[RunFiles], list[SweepFiles]]:
    """Read each directory once, in the order given; of a fit, what was trained for it.

    Raises:
        InputError: one of them is no run, no sweep and no fit, or holds a damaged file.
    """
    runs, sweeps = [], []
    given = [part for path in paths for part in _parts_of(Path(path).resolve())]
    for path in dict.fromkeys(given):
        if is_sweep(path):
            sweeps.append(_read_sweep(path))
        elif is_run(path):
            runs.append(_read_run(path))
        else:
            raise InputError(_no_run(path))
    if not runs and not sweeps:
        raise InputError("A report needs at least one directory of a run or a sweep.")
    return runs, sweeps


def is_run(path: Path) -> bool:
    """Whether a directory is a run's."""
    return (path / "config.yaml").is_file()


def is_sweep(path: Path) -> bool:
    """Whether a directory is a sweep's."""
    return any((path / mark).is_file() for mark in _SWEEP_MARKS) or (path / "trials").is_dir()


def is_fit(path: Path) -> bool:
    """Whether a directory is a fit's: a reference and waves of candidates lie in it."""
    return (path / _FIT_MARK).is_file()


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return dotted keys -> values; an empty mapping is a value.

    >>> flatten({"pruning": {"sparsity": 0.9, "groups": {}}, "seed": 0})
    {'pruning.sparsity': 0.9, 'pruning.groups': {}, 'seed': 0}
    """
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _parts_of(path: Path) -> list[Path]:
    """Return the runs and sweeps that a directory stands for: a fit's, or itself."""
    if not is_fit(path):
        return [path]
    inner = [path / "dense", *sorted((path / "waves").glob("*/"))]
    found = [part for part in inner if is_run(part) or is_sweep(part)]
    if not found:
        raise InputError(
            f"The fit in {str(path)!r} has trained nothing yet. Go on with it: rayprune fit CONFIG "
            f"--out {path} --resume."
        )
    return found


def _read_run(path: Path) -> RunFiles:
    rows = path / "results.jsonl"
    summary = path / "summary.json"
    return RunFiles(
        path=path,
        config=_yaml(path / "config.yaml"),
        rows=_rows(rows) if rows.is_file() else [],
        summary=_json(summary) if summary.is_file() else None,
    )


def _read_sweep(path: Path) -> SweepFiles:
    trials = path / "trials"
    found = sorted(trials.iterdir()) if trials.is_dir() else []
    lineage = path / "lineage.jsonl"
    held = {
        name: _json(path / name) if (path / name).is_file() else {}
        for name in ("sweep.json", "front.json")
    }
    config = path / "sweep.yaml"
    return SweepFiles(
        path=path,
        config=_yaml(config) if config.is_file() else {},
        # A trial that is about to start has no config.yaml yet.
        trials={trial.name: _read_run(trial) for trial in found if is_run(trial)},
        outcome=held["sweep.json"],
        front=held["front.json"],
        lineage=_rows(lineage) if lineage.is_file() else [],
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{str(path)!r} can't be read: {error}.") from error
    if not isinstance(held, dict):
        raise InputError(f"{str(path)!r} must hold a JSON object.")
    return held


def _yaml(path: Path) -> dict[str, Any]:
    try:
        return yaml12.read_mapping(path)
    except ConfigError as error:
        raise InputError(str(error)) from error


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        return read_rows(path)
    except StorageError as error:
        raise InputError(str(error)) from error


def _no_run(path: Path) -> str:
    if not path.is_dir():
        return f"There is no directory {str(path)!r}."
    inner = sorted(p for p in path.iterdir() if p.is_dir() and (is_run(p) or is_sweep(p)))
    hint = f" Did you mean the runs in it, such as {str(inner[0])!r}?" if inner else ""
    return (
        f"{str(path)!r} is neither a run's directory (it has no config.yaml) nor a sweep's "
        f"(no sweep.yaml) nor a fit's (no fit.yaml).{hint}"
    )
