"""Where a run's latency is written down: its summary.json, and its W&B run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rayprune.rllib.checkpoints.files import CONFIG_FILE, locate, read_experiment
from rayprune.rllib.commands.bench_arms import DENSE, EAGER, PRUNED, RLLIB
from rayprune.tracking.record import to_json, write_atomic
from rayprune.tracking.tracker import Trackers, is_installed
from rayprune.tracking.wandb import WandbTracker

_SUMMARY = "summary.json"


def latency_of(result: Mapping[str, Any], target: str) -> dict[str, Any] | None:
    """Return what a summary says of a checkpoint's latency: one action at a time, one thread.

    Args:
        result: what `rayprune.rllib.commands.bench.bench` returned.
        target: the checkpoint, as it was given.

    Returns:
        The fastest exported policy: ``runtime``, ``policy`` (``dense`` where nothing could be
        removed), ``batch``, ``threads``, ``median_us``, ``ci95_us``, ``p99_us``, ``missed``,
        ``speed_up``; beside it ``dense_us`` in the same runtime, ``forward_inference_us``, the
        ``deadline_ms``, the ``cpu``, and all ``rows`` of the checkpoint. None where no file was
        timed.
    """
    rows = [row for row in result["rows"] if row["target"] == target]
    if not rows:
        return None
    batch, threads = (min(row[key] for row in rows) for key in ("batch", "threads"))
    found = {
        (row["policy"], row["runtime"]): row
        for row in rows
        if (row["batch"], row["threads"]) == (batch, threads)
    }
    exported = {key: row for key, row in found.items() if key[1] not in (RLLIB, EAGER)}
    candidates = [row for key, row in exported.items() if key[0] == PRUNED]
    candidates = candidates or list(exported.values())
    if not candidates:
        return None
    best = min(candidates, key=lambda row: float(row["median_us"]))
    dense = found.get((DENSE, best["runtime"]))
    inference = found.get((DENSE, RLLIB))
    kept = ("runtime", "policy", "batch", "threads", "median_us", "ci95_us", "p99_us", "missed")
    return {
        **{key: best[key] for key in (*kept, "speed_up")},
        "dense_us": None if dense is None else dense["median_us"],
        "forward_inference_us": None if inference is None else inference["median_us"],
        "deadline_ms": result["settings"]["deadline_ms"],
        "cpu": result["machine"]["cpu"],
        "rows": [{key: value for key, value in row.items() if key != "target"} for row in rows],
    }


def record_latency(
    run: Path, result: Mapping[str, Any], tell: Callable[[str], None]
) -> dict[str, Any] | None:
    """Write a run's latency into its summary.json and its W&B run, where it has those.

    Args:
        run: what was timed, as it was given; only a run's directory is written to.
        result: what `rayprune.rllib.commands.bench.bench` returned.
        tell: told of what W&B makes difficult.

    Returns:
        What was written, None where nothing was.
    """
    latency, path = latency_of(result, str(run)), run / _SUMMARY
    if latency is None or not path.is_file():
        return None
    summary = json.loads(path.read_text(encoding="utf-8"))
    summary["latency"] = latency
    write_atomic(path, to_json(summary, indent=2) + "\n")
    _track(run, summary, tell)
    return latency


def _track(run: Path, summary: Mapping[str, Any], tell: Callable[[str], None]) -> None:
    directory = locate(run)
    # A run that W&B never knew isn't begun for its latency.
    if not (directory / CONFIG_FILE).is_file() or not (run / "wandb").is_dir():
        return
    experiment = read_experiment(directory)
    tracking = experiment.tracking
    if tracking.wandb == "off" or not is_installed("wandb", tracking, tell):
        return
    tracker = WandbTracker(
        run,
        mode=tracking.wandb,
        project=tracking.project,
        name=f"{experiment.name}-seed{experiment.seed}",
        group=experiment.name,
        tags=(),
        tell=tell,
    )
    with Trackers([tracker], tell) as guarded:
        guarded.start({"name": experiment.name, "algorithm": experiment.algorithm})
        guarded.finish(summary)
