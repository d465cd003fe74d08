"""The end of a sweep: the front, chosen by validation returns and then tested, and its files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import ray

from rayprune.rllib.checkpoints import files as checkpoints
from rayprune.rllib.evaluation.open_policy import measure
from rayprune.rllib.experiment.algorithm_config import build_config
from rayprune.rllib.training.summary import SummarySubject, summarise_run
from rayprune.search.objectives import LATENCY, Objectives
from rayprune.search.pareto import scattered_subset
from rayprune.search.sweep_spec import Sweep
from rayprune.search.trials.journal import Journal
from rayprune.storage.copies import commit, drop, shown
from rayprune.storage.urls import join
from rayprune.tracking.record import read_rows, to_json, write_atomic
from rayprune.tracking.remote import fetch_checkpoint, fetch_record

FRONT_FILE: Final = "front.json"
SUMMARY_FILE: Final = "sweep.json"
REFERENCE_FILE: Final = "reference.json"
FRONT_SIZE: Final = 12
"""Points of the front that are measured on test seeds and reported."""
SCHEMA: Final = 1
_MEASURED: Final = ("return", "sparsity", "flops", "parameters", "env_steps", LATENCY)


def write_outcome(
    sweep: Sweep,
    journal: Journal,
    errors: Mapping[str, str | None],
    dense: Mapping[str, Any] | None,
    wall_time_s: float,
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Choose the front, measure it on test seeds, summarise each trial; write it all.

    Args:
        sweep: what ran.
        journal: holds each trial's results and checkpoints.
        errors: trial -> why it failed for good, None where it didn't.
        dense: the dense policy's ``validation`` and ``test`` returns, if they were measured.
        wall_time_s: of the search.

    Returns:
        The content of sweep.json, and that of each trial's summary.json.
    """
    points = [
        {**entry, "trial": trial}
        for trial in errors
        for entry in journal.files(trial).archive.entries
    ]
    commit(sweep.out)  # the policies, for the machines that measure them
    summaries = _summaries(sweep, journal, list(errors), dense)
    front = _front(sweep, points)
    write_atomic(sweep.out / FRONT_FILE, to_json(front, indent=2) + "\n")
    outcome = {
        "schema": SCHEMA,
        "name": sweep.experiment.name,
        "method": sweep.search.method,
        "env_steps": sum(journal.files(trial).last.get("env_steps", 0) for trial in errors),
        "trials": [_entry(journal, trial, error) for trial, error in errors.items()],
        "dense_return": None if dense is None else dense["validation"]["iqm"],
        "wall_time_s": round(wall_time_s, 3),
    }
    # Last, for it says that all the rest is there.
    write_atomic(sweep.out / SUMMARY_FILE, to_json(outcome, indent=2) + "\n")
    return {**outcome, "front": front}, summaries


def _front(sweep: Sweep, points: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    objectives = sweep.objectives
    members = front_members(objectives, points)
    vectors = [objectives.vector(point) for point in members]
    chosen = [members[i] for i in scattered_subset(vectors, FRONT_SIZE)]
    chosen.sort(key=lambda point: point["sparsity"])
    reference = _reference(sweep, points)
    tests = _tests(sweep, chosen)
    return {
        "objectives": list(objectives.names),
        "hypervolume": objectives.hypervolume(members, reference),
        "reference": reference,
        "points": [_point(point, test) for point, test in zip(chosen, tests, strict=True)],
    }


def front_members(
    objectives: Objectives, points: Sequence[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """Return the points that no other dominates; of equal ones the one that was trained longest.

    A clone may hold what its donor had: with as good a validation return, and more training behind
    it.
    """
    oldest_last = sorted(points, key=lambda point: point["env_steps"])
    return [oldest_last[i] for i in objectives.distinct_front(oldest_last)]


def _reference(sweep: Sweep, points: Sequence[Mapping[str, Any]]) -> list[float]:
    """Return the hypervolume's reference: given, kept from before, or from the first results."""
    if sweep.search.reference is not None:
        return list(sweep.search.reference)
    path = sweep.out / REFERENCE_FILE
    if path.is_file():
        kept: list[float] = json.loads(path.read_text(encoding="utf-8"))
        return kept
    first = sorted(points, key=lambda point: point["env_steps"])[: sweep.trials]
    reference = sweep.objectives.worst_of(first) or [0.0] * len(sweep.objectives.names)
    write_atomic(path, to_json(reference) + "\n")
    return reference


def _point(point: Mapping[str, Any], test: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "trial": point["trial"],
        **_measured(point),
        "test_return": test["iqm"],
        "test": dict(test),
        "config": point["values"],
        "checkpoint": f"trials/{point['trial']}/{point['checkpoint']}",
    }


def _entry(journal: Journal, trial: str, error: str | None) -> dict[str, Any]:
    files = journal.files(trial)
    return {
        "trial": trial,
        "status": "done" if error is None else "failed",
        "error": error,
        "config": files.last.get("values"),
        **_measured(files.last),
        "age": files.last.get("training_iteration"),
        "donor": files.donor,
    }


def _measured(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was measured of a trial; a latency only where it was."""
    found = {key: result.get(key) for key in _MEASURED}
    if found[LATENCY] is None:
        del found[LATENCY]
    return found


def _tests(sweep: Sweep, points: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Measure points on the test seeds, side by side on the cluster."""
    jobs = [
        _on_test_seeds.remote(shown(sweep.out / "trials" / point["trial"] / point["checkpoint"]))
        for point in points
    ]
    return list(ray.get(jobs))


def _summaries(
    sweep: Sweep, journal: Journal, trials: Sequence[str], dense: Mapping[str, Any] | None
) -> dict[str, dict[str, Any]]:
    """Write the summary.json of each trial that has kept anything."""
    jobs = {}
    for trial in trials:
        entries = journal.files(trial).archive.entries
        if entries:
            best = entries[sweep.objectives.rank(entries)[0]]
            home = shown(sweep.out / "trials" / trial)
            jobs[trial] = _summary.remote(home, trial, best, dense)
    summaries = dict(zip(jobs, ray.get(list(jobs.values())), strict=True))
    for trial, summary in summaries.items():
        path = sweep.out / "trials" / trial / "summary.json"
        write_atomic(path, to_json(summary, indent=2) + "\n")
    return summaries


@ray.remote(num_cpus=1)
def _on_test_seeds(checkpoint: str) -> dict[str, Any]:
    directory = fetch_checkpoint(checkpoint)
    try:
        experiment = checkpoints.read_experiment(directory)
        evaluation = experiment.evaluation
        config = build_config(experiment)
        return measure(config, directory, evaluation.test_seed, evaluation.episodes)
    finally:
        drop(directory)


@ray.remote(num_cpus=1)
def _summary(
    home: str, trial: str, point: Mapping[str, Any], dense: Mapping[str, Any] | None
) -> dict[str, Any]:
    directory, records = fetch_checkpoint(join(home, point["checkpoint"])), fetch_record(home)
    try:
        return _summarised(directory, records / "results.jsonl", trial, point, dense)
    finally:
        drop(directory)
        drop(records)


def _summarised(
    checkpoint: Path,
    record: Path,
    trial: str,
    point: Mapping[str, Any],
    dense: Mapping[str, Any] | None,
) -> dict[str, Any]:
    experiment = checkpoints.read_experiment(checkpoint)
    subject = SummarySubject.of(experiment.model_copy(update={"name": trial}))
    progress = {
        "env_steps": point["env_steps"],
        "updates": point["updates"],
        "wall_time_s": point["time_s"],
        "best": point["checkpoint"],
    }
    rows = read_rows(record) if record.is_file() else []
    return summarise_run(subject, checkpoint, progress, dense, rows)
