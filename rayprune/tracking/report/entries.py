"""A run and a sweep as the plain dicts that a report is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rayprune.tracking.learning import learning_of
from rayprune.tracking.mask_updates import MEASURES, mask_updates_of, updates_in
from rayprune.tracking.record import step_of
from rayprune.tracking.report.read import RunFiles, SweepFiles, flatten
from rayprune.tracking.tracker import layer_sparsities

MOST_POINTS = 400
"""A line has no more: a screen has no more pixels, and the page stays light."""
COLUMNS = 120
"""States of the layers that are kept of a run."""
NO_CHOICE = ("name", "seed", "versions.", "tracking.", "search.")
"""Config keys in which runs differ without anyone having chosen between policies."""
Data = dict[str, Any]


def run_entry(files: RunFiles, run_id: str) -> Data:
    """Return what a report shows of a run, by the name that it has in its sweep or directory."""
    config, rows, summary = files.config, files.rows, files.summary or {}
    returns, sparsity = summary.get("returns") or {}, summary.get("sparsity") or {}
    measured = [row for row in rows if row.get("validation")]
    last = rows[-1] if rows else {}
    validation = returns.get("validation") or (measured[-1]["validation"] if measured else None)
    return {
        "id": str(files.path),
        "label": str(config.get("name") or run_id),
        "directory": run_id,
        "path": str(files.path),
        "sweep": None,
        "trial": None,
        "algorithm": str(config.get("algorithm", "")),
        "env": str(config.get("env", "")),
        "seed": config.get("seed"),
        "status": "done" if files.summary else "unfinished",
        "error": None,
        "donor": None,
        "config": {k: v for k, v in flatten(config).items() if not k.startswith("versions.")},
        "env_steps": summary.get("env_steps", step_of(last)),
        "updates": summary.get("updates", last.get("updates")),
        "wall_time_s": summary.get("wall_time_s", last.get("time_s")),
        "sparsity": sparsity.get("prunable", last.get("sparsity")),
        "sparsity_all": sparsity.get("all"),
        "return": (validation or {}).get("iqm"),
        "validation": validation,
        "test": returns.get("test"),
        "dense_test": returns.get("dense_test"),
        "parameters": summary.get("parameters"),
        "flops": summary.get("flops"),
        "layers": layer_sparsities(sparsity.get("layers") or last.get("layers")),
        "protected": [
            layer["name"] for layer in sparsity.get("layers", []) if layer.get("protected")
        ],
        "curves": _curves(rows),
        "mask_updates": _largest_changes(summary.get("mask_updates") or mask_updates_of(rows)),
        "learning": summary.get("learning")
        or learning_of(rows, (returns.get("dense_test") or {}).get("iqm")),
    }


def sweep_entry(files: SweepFiles) -> tuple[Data, list[Data]]:
    """Return what a report shows of a sweep, and its trials as runs."""
    name = str(files.outcome.get("name") or files.config.get("name") or files.path.name)
    entries = {entry["trial"]: entry for entry in files.outcome.get("trials", [])}
    trials = []
    for trial, run_files in files.trials.items():
        entry = entries.get(trial, {})
        run = run_entry(run_files, trial)
        run.update(
            label=trial,
            sweep=name,
            trial=trial,
            status=entry.get("status", run["status"]),
            error=entry.get("error"),
            donor=entry.get("donor"),
        )
        run["config"].update(entry.get("config") or {})
        for key in ("return", "sparsity"):
            run[key] = entry.get(key) if run[key] is None else run[key]
        trials.append(run)
    search = files.config.get("search") or {}
    sweep = {
        "name": name,
        "path": str(files.path),
        "status": "done" if files.outcome else "unfinished",
        "method": files.outcome.get("method") or search.get("method"),
        "env_steps": files.outcome.get("env_steps") or sum(t["env_steps"] for t in trials),
        "dense_return": files.outcome.get("dense_return"),
        "space": list(search.get("space") or _searched(files.outcome)),
        "hypervolume": files.front.get("hypervolume"),
        "objectives": files.front.get("objectives", []),
        "front": files.front.get("points", []),
        "lineage": files.lineage,
        "trials": [run["trial"] for run in trials],
        "wall_time_s": files.outcome.get("wall_time_s"),
    }
    return sweep, trials


def label_apart(runs: list[Data]) -> None:
    """Make labels differ: by the seed where that is enough, or else by the directory."""
    _extend(runs, lambda run: f"{run['label']}, seed {run['seed']}")
    _extend(runs, lambda run: f"{run['label']} ({run['sweep'] or run['directory']})")
    _extend(runs, lambda run: run["path"])


def thin(points: Sequence[list[Any]], most: int = MOST_POINTS) -> list[list[Any]]:
    """Return at most ``most`` of a line's points, with the extremes of each stretch.

    >>> thin([[0, 1.0], [1, 9.0], [2, 2.0], [3, 0.0]], most=2)
    [[1, 9.0], [3, 0.0]]
    """
    if len(points) <= most:
        return list(points)
    stretches = max(1, most // 2)
    kept: set[int] = set()
    for n in range(stretches):
        stretch = range(n * len(points) // stretches, (n + 1) * len(points) // stretches)
        kept |= {min(stretch, key=_at(points)), max(stretch, key=_at(points))}
    return [points[n] for n in sorted(kept)]


def _at(points: Sequence[list[Any]]) -> Any:
    return lambda index: points[index][1]


def _largest_changes(told: Mapping[str, Any] | None) -> Data:
    """Return the largest of each figure of a run's mask updates."""
    return {key: most["value"] for key, most in ((told or {}).get("largest") or {}).items()}


def _curves(rows: Sequence[Mapping[str, Any]]) -> Data:
    return {
        "return": thin(_line(rows, "return_mean")),
        "sparsity": thin(_line(rows, "sparsity")),
        **{
            key: thin([[x["step"], x[key]] for x in updates_in(rows) if key in x])
            for key in MEASURES
        },
        "validation": [
            [step_of(row), row["validation"]["iqm"], *row["validation"].get("ci95", [])]
            for row in rows
            if row.get("validation")
        ],
        "layers": _layer_curve([row for row in rows if row.get("layers")]),
    }


def _layer_curve(rows: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    """Return steps with the sparsity of each layer, so few that a page can hold them."""
    stride = max(1, -(-len(rows) // COLUMNS))
    return [[step_of(row), layer_sparsities(row["layers"])] for row in rows[::-1][::stride][::-1]]


def _line(rows: Sequence[Mapping[str, Any]], key: str) -> list[list[Any]]:
    return [[step_of(row), row[key]] for row in rows if row.get(key) is not None]


def _searched(outcome: Mapping[str, Any]) -> list[str]:
    """Return the keys that the trials were given, for a sweep without its sweep.yaml."""
    return list(dict.fromkeys(k for entry in outcome.get("trials", []) for k in entry["config"]))


def _extend(runs: list[Data], longer: Any) -> None:
    labels = [run["label"] for run in runs]
    ambiguous = [run for run in runs if labels.count(run["label"]) > 1]
    for run, label in [(run, longer(run)) for run in ambiguous]:
        run["label"] = label
