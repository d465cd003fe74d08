"""What a report shows, as one plain dict: pure, and tested apart from the page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rayprune.tracking.record import to_json
from rayprune.tracking.report.entries import NO_CHOICE, Data, label_apart, run_entry, sweep_entry
from rayprune.tracking.report.fronts import front_points
from rayprune.tracking.report.learning_part import dip_points, learning_rows
from rayprune.tracking.report.parallel_coordinates import parallel_coordinates
from rayprune.tracking.report.read import read_all
from rayprune.tracking.report.tiles import first_numbers


def report_data(paths: Sequence[Path]) -> Data:
    """Read runs and sweeps, and return what there is to show.

    Args:
        paths: directories of runs and of sweeps, in any order.

    Returns:
        ``runs``, ``sweeps``, ``fronts``, ``comparison``, ``heat``, ``choices`` and ``tiles``, of
        values that JSON has. Returns are validation IQMs unless the key says test.

    Raises:
        InputError: a directory is neither, or a file in it is damaged.
    """
    run_files, sweep_files = read_all(paths)
    runs = [run_entry(files, files.path.name) for files in run_files]
    sweeps = []
    for files in sweep_files:
        sweep, trials = sweep_entry(files)
        sweeps.append(sweep)
        runs += trials
    label_apart(runs)
    for run in runs:
        run["dips"] = dip_points(run["learning"])
    return {
        "runs": runs,
        "sweeps": sweeps,
        "envs": list(dict.fromkeys(run["env"] for run in runs)),
        "fronts": front_points(runs, sweeps),
        "comparison": _comparison(runs, sweeps),
        "heat": _heat(runs),
        "choices": parallel_coordinates(runs, sweeps),
        "tiles": first_numbers(runs, sweeps),
        "learning": learning_rows(_shown_alone(runs), _seed_groups(runs, least=2)),
    }


def _comparison(runs: Sequence[Data], sweeps: Sequence[Data]) -> list[Data]:
    """Return per run the test returns of the pruned and of the dense policy; then over seeds."""
    on_front = {
        (sweep["name"], point["trial"]) for sweep in sweeps for point in sweep["front"]
    } or {(run["sweep"], run["trial"]) for run in runs}
    shown = [
        run
        for run in runs
        if run["test"] and (run["sweep"] is None or (run["sweep"], run["trial"]) in on_front)
    ]
    dense = {sweep["name"]: sweep["dense_return"] for sweep in sweeps}
    rows = [
        {
            "label": run["label"],
            "env": run["env"],
            "sparsity": run["sparsity"],
            "pruned": run["test"],
            "dense": run["dense_test"] or _single(dense.get(run["sweep"])),
        }
        for run in shown
    ]
    return rows + [_over_seeds(group) for group in _seed_groups(shown)]


def _single(value: float | None) -> Data | None:
    return None if value is None else {"iqm": value, "ci95": None, "ci95_over": None}


def _shown_alone(runs: Sequence[Data]) -> list[Data]:
    """Return the runs that are no trials: of those a sweep's own charts tell."""
    return [run for run in runs if run["sweep"] is None]


def _seed_groups(runs: Sequence[Data], least: int = 3) -> list[list[Data]]:
    """Return the runs that differ in nothing but their seed (and name), so many at least."""
    groups: dict[str, list[Data]] = {}
    for run in runs:
        if run["sweep"] is None:
            key = {k: v for k, v in run["config"].items() if not k.startswith(NO_CHOICE)}
            groups.setdefault(to_json(dict(sorted(key.items()))), []).append(run)
    return [group for group in groups.values() if len(group) >= least]


def _over_seeds(group: Sequence[Data]) -> Data:
    # scipy takes a second to import, and only this needs it.
    from rayprune.statistics.intervals import summarise

    dense = [run["dense_test"]["iqm"] for run in group if run["dense_test"]]
    return {
        "label": f"{group[0]['config'].get('name', 'runs')}: {len(group)} seeds",
        "env": group[0]["env"],
        "sparsity": sum(run["sparsity"] for run in group) / len(group),
        "pruned": summarise([run["test"]["iqm"] for run in group], over="runs"),
        "dense": summarise(dense, over="runs") if len(dense) == len(group) else None,
    }


def _heat(runs: Sequence[Data]) -> list[Data]:
    """Return maps of layers: a column per run; over time where one run alone has rows of them."""
    shown = [run for run in runs if run["layers"]]
    if len(shown) == 1 and len(shown[0]["curves"]["layers"]) > 1:
        (run,) = shown
        columns = [
            {"label": f"{step:,}", "layers": layers, "protected": run["protected"]}
            for step, layers in _spaced(run["curves"]["layers"])
        ]
        return [_heat_map([run], "env steps", columns)]
    maps = []
    # Networks of other layers are maps of their own: one would be mostly empty.
    for names in dict.fromkeys(tuple(run["layers"]) for run in shown):
        same = [run for run in shown if tuple(run["layers"]) == names]
        same.sort(key=lambda run: run["sparsity"] or 0)
        keys = ("label", "layers", "protected")
        columns = [{key: run[key] for key in keys} for run in same]
        maps.append(_heat_map(same, "runs", columns))
    return maps


def _spaced(rows: Sequence[Any], most: int = 40) -> list[Any]:
    """Return at most ``most`` rows at even distances, the last one always."""
    stride = -(-len(rows) // most)
    return [*rows[::-1][::stride]][::-1]


def _heat_map(runs: Sequence[Data], over: str, columns: list[Data]) -> Data:
    of = dict.fromkeys(f"{run['algorithm']} on {run['env']}" for run in runs)
    return {"of": ", ".join(of), "over": over, "columns": columns, "layers": [*runs[0]["layers"]]}
