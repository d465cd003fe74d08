"""What the policies of a report were chosen between, as axes, and each of them as a line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rayprune.tracking.record import to_json
from rayprune.tracking.report.entries import NO_CHOICE, Data

MOST_AXES = 7
"""Parallel coordinates of more can't be read."""


def parallel_coordinates(runs: Sequence[Data], sweeps: Sequence[Data]) -> list[Data]:
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
        and not key.startswith(NO_CHOICE)
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
