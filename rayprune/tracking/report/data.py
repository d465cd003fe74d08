"""What a report shows, as one plain dict: pure, and tested apart from the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rayprune.tracking.learning import learning_of
from rayprune.tracking.record import step_of, to_json
from rayprune.tracking.report.learning_part import dip_points, learning_rows
from rayprune.tracking.report.read import RunFiles, SweepFiles, flatten, read_all
from rayprune.tracking.tracker import layer_sparsities

MOST_POINTS = 400
"""A line has no more: a screen has no more pixels, and the page stays light."""

COLUMNS = 120
"""States of the layers that are kept of a run."""

MOST_AXES = 7
"""Parallel coordinates of more can't be read."""

_NO_CHOICE = ("name", "seed", "versions.", "tracking.", "search.")
"""Config keys in which runs differ without anyone having chosen between policies."""

_TOLD = ("sparsity", "criterion", "granularity", "distribution", "schedule.kind")

Data = dict[str, Any]


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
    runs = [_run(files, files.path.name) for files in run_files]
    sweeps = []
    for files in sweep_files:
        sweep, trials = _sweep(files)
        sweeps.append(sweep)
        runs += trials
    _label(runs)
    for run in runs:
        run["dips"] = dip_points(run["learning"])
    return {
        "runs": runs,
        "sweeps": sweeps,
        "envs": list(dict.fromkeys(run["env"] for run in runs)),
        "fronts": _fronts(runs, sweeps),
        "comparison": _comparison(runs, sweeps),
        "heat": _heat(runs),
        "choices": _choices(runs, sweeps),
        "tiles": _tiles(runs, sweeps),
        "learning": learning_rows(_shown_alone(runs), _seed_groups(runs, least=2)),
    }


def non_dominated(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Return which points no other beats in one coordinate without losing in the other.

    >>> non_dominated([(0.9, 400.0), (0.8, 500.0), (0.7, 450.0), (0.9, 400.0)])
    [True, True, False, True]
    """
    return [
        not any(
            other[0] >= point[0] and other[1] >= point[1] and other != point for other in points
        )
        for point in points
    ]


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


def _run(files: RunFiles, run_id: str) -> Data:
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
        "learning": summary.get("learning")
        or learning_of(rows, (returns.get("dense_test") or {}).get("iqm")),
    }


def _curves(rows: Sequence[Mapping[str, Any]]) -> Data:
    return {
        "return": thin(_line(rows, "return_mean")),
        "sparsity": thin(_line(rows, "sparsity")),
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


def _sweep(files: SweepFiles) -> tuple[Data, list[Data]]:
    name = str(files.outcome.get("name") or files.config.get("name") or files.path.name)
    entries = {entry["trial"]: entry for entry in files.outcome.get("trials", [])}
    trials = []
    for trial, run_files in files.trials.items():
        entry = entries.get(trial, {})
        run = _run(run_files, trial)
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


def _searched(outcome: Mapping[str, Any]) -> list[str]:
    """Return the keys that the trials were given, for a sweep without its sweep.yaml."""
    return list(dict.fromkeys(k for entry in outcome.get("trials", []) for k in entry["config"]))


def _label(runs: list[Data]) -> None:
    """Make labels differ: by the seed where that is enough, or else by the directory."""
    _extend(runs, lambda run: f"{run['label']}, seed {run['seed']}")
    _extend(runs, lambda run: f"{run['label']} ({run['sweep'] or run['directory']})")
    _extend(runs, lambda run: run["path"])


def _extend(runs: list[Data], longer: Any) -> None:
    labels = [run["label"] for run in runs]
    ambiguous = [run for run in runs if labels.count(run["label"]) > 1]
    for run, label in [(run, longer(run)) for run in ambiguous]:
        run["label"] = label


def _fronts(runs: Sequence[Data], sweeps: Sequence[Data]) -> list[Data]:
    """Return for each environment and source its runs as points, and which are on the front."""
    fronts = []
    for sweep in sweeps:
        trials = {run["trial"]: run for run in runs if run["sweep"] == sweep["name"]}
        chosen = [_front_point(point, trials.get(point["trial"])) for point in sweep["front"]]
        on_front = {point["trial"] for point in sweep["front"]}
        others = [
            _point(run, False)
            for run in trials.values()
            if run["trial"] not in on_front and run["status"] != "failed"
        ]
        env = next((run["env"] for run in trials.values()), "")
        fronts.append(_front(sweep["name"], env, [*chosen, *others]))
    for env in dict.fromkeys(run["env"] for run in runs):
        single = [run for run in runs if run["env"] == env and run["sweep"] is None]
        single = [run for run in single if None not in (run["return"], run["sparsity"])]
        best = non_dominated([(run["sparsity"], run["return"]) for run in single])
        points = [_point(run, on_front) for run, on_front in zip(single, best, strict=True)]
        fronts.append(_front("single runs", env, points))
    return [front for front in fronts if front["points"]]


def _front(source: str, env: str, points: list[Data]) -> Data:
    shown = [p for p in points if None not in (p["sparsity"], p["return"])]
    return {"source": source, "env": env, "points": sorted(shown, key=lambda p: p["sparsity"])}


def _point(run: Data, on_front: bool) -> Data:
    config = run["config"]
    told = {key: config.get(key) for key in (*(f"pruning.{key}" for key in _TOLD),)}
    if "rllib.training.lr" in config:
        told["rllib.training.lr"] = config["rllib.training.lr"]
    return {
        "run": run["id"],
        "label": run["label"],
        "sparsity": run["sparsity"],
        "return": run["return"],
        "test_return": (run["test"] or {}).get("iqm"),
        "config": {key: value for key, value in told.items() if value is not None},
        "on_front": on_front,
    }


def _front_point(point: Mapping[str, Any], run: Data | None) -> Data:
    """A front's point may be an earlier policy of its trial, so its own numbers come first."""
    base: Data = _point(run, True) if run else {"run": None, "on_front": True}
    own = {
        "label": point["trial"],
        "sparsity": point.get("sparsity", base.get("sparsity")),
        "return": point.get("return", base.get("return")),
        "test_return": point.get("test_return"),
        "config": dict(point.get("config") or base.get("config") or {}),
    }
    return {**base, **own}


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
            key = {k: v for k, v in run["config"].items() if not k.startswith(_NO_CHOICE)}
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


def _choices(runs: Sequence[Data], sweeps: Sequence[Data]) -> list[Data]:
    """Return parallel coordinates: per sweep its space, for single runs what they differ in."""
    found = []
    for sweep in sweeps:
        trials = [run for run in runs if run["sweep"] == sweep["name"]]
        front = {point["trial"] for point in sweep["front"]}
        keys = list(sweep["space"]) or _differing(trials)
        found.append(_parallel(sweep["name"], trials, keys, front))
    single = [run for run in runs if run["sweep"] is None]
    for kind in dict.fromkeys((run["algorithm"], run["env"]) for run in single):
        same = [run for run in single if (run["algorithm"], run["env"]) == kind]
        found.append(_parallel(" on ".join(kind), same, _differing(same), set()))
    return [one for one in found if one["axes"] and len(one["lines"]) > 1]


def _differing(runs: Sequence[Data]) -> list[str]:
    keys = list(runs[0]["config"]) if runs else []
    differing = [
        key
        for key in keys
        # A key that a run lacks was left to its default: nobody chose there.
        if all(key in run["config"] for run in runs)
        and not key.startswith(_NO_CHOICE)
        and len({to_json(run["config"].get(key)) for run in runs}) > 1
    ]
    # What a pruning library is asked about comes first, where there is no room for all.
    return sorted(differing, key=lambda key: not key.startswith("pruning."))


def _parallel(source: str, runs: Sequence[Data], keys: Sequence[str], front: set[str]) -> Data:
    shown = [
        run
        for run in runs
        if None not in (run["return"], run["sparsity"]) and run["status"] != "failed"
    ]
    left_out, keys = list(keys[MOST_AXES:]), keys[:MOST_AXES]
    axes = [_axis(key, [run["config"].get(key) for run in shown]) for key in keys]
    results = {"sparsity": "sparsity reached", "return": "validation return"}
    axes += [_axis(name, [run[key] for run in shown]) for key, name in results.items() if keys]
    lines = [
        {
            "label": run["label"],
            "values": [_value(run["config"].get(k)) for k in keys] + [run[k] for k in results],
            "on_front": run["trial"] in front,
        }
        for run in shown
    ]
    return {"source": source, "axes": axes, "lines": lines, "left_out": left_out}


def _axis(key: str, values: Sequence[Any]) -> Data:
    known = [value for value in values if value is not None]
    numeric = bool(known) and all(
        isinstance(value, (int, float)) and not isinstance(value, bool) for value in known
    )
    if not numeric:
        names = sorted({str(_value(value)) for value in known})
        return {"key": key, "kind": "category", "names": names}
    low, high = min(known), max(known)
    kind = "log" if low > 0 and high / low >= 5 and high < 1 and "sparsity" not in key else "linear"
    return {"key": key, "kind": kind, "low": low, "high": high}


def _value(value: Any) -> Any:
    plain = value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))
    return value if plain else (value if isinstance(value, str) else to_json(value))


def _tiles(runs: Sequence[Data], sweeps: Sequence[Data]) -> list[Data]:
    """Return the few numbers that come first: what, its value, and what it is of."""
    done = [run for run in runs if run["status"] == "done"]
    failed = [run for run in runs if run["status"] == "failed"]
    steps = sum(run["env_steps"] for run in runs if run["sweep"] is None)
    steps += sum(sweep["env_steps"] for sweep in sweeps)
    tiles = [_tile("Runs", len(runs), _of_runs(len(runs) - len(done) - len(failed), len(failed)))]
    tiles.append(_tile("Env steps", steps, "sampled in all"))
    measured = [run for run in done if None not in (run["return"], run["sparsity"])]
    if measured and len({run["env"] for run in runs}) == 1:
        best = max(measured, key=lambda run: (run["return"], run["sparsity"]))
        tiles.append(_tile("Best validation return", best["return"], best["label"], "return"))
        tiles += _sparsest(measured, sweeps)
    tiles += [
        _tile("Hypervolume", sweep["hypervolume"], sweep["name"], "return")
        for sweep in sweeps
        if sweep["hypervolume"] is not None
    ]
    exploits = sum(len(sweep["lineage"]) for sweep in sweeps)
    return [*tiles, _tile("Exploits", exploits, "copies of a better trial")] if exploits else tiles


def _sparsest(measured: Sequence[Data], sweeps: Sequence[Data]) -> list[Data]:
    """The question that every user has: how small before it breaks?"""
    known = [run["dense_test"]["iqm"] for run in measured if run["dense_test"]]
    known += [sweep["dense_return"] for sweep in sweeps if sweep["dense_return"] is not None]
    if not known:
        most = max(measured, key=lambda run: run["sparsity"])
        return [_tile("Sparsest at its end", most["sparsity"], most["label"], "percent")]
    dense = max(known)
    # "95 % of" means 5 % of its size below it, also where returns are negative.
    good = [run for run in measured if run["return"] >= dense - 0.05 * abs(dense)]
    what = "Sparsest with 95 % of the dense return"
    if not good:
        return [_tile(what, None, f"none; the dense return is {dense:.1f}")]
    most = max(good, key=lambda run: run["sparsity"])
    return [_tile(what, most["sparsity"], most["label"], "percent")]


def _of_runs(unfinished: int, failed: int) -> str:
    parts = [f"{n} {what}" for n, what in ((failed, "failed"), (unfinished, "unfinished")) if n]
    return ", ".join(parts) or "all finished"


def _tile(name: str, value: float | None, note: str, form: str = "count") -> Data:
    return {"name": name, "value": value, "note": note, "form": form}
