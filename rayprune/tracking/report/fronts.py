"""Runs as points of sparsity and return, and which of them are on the front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rayprune.tracking.report.entries import Data

_TOLD = ("sparsity", "criterion", "granularity", "distribution", "schedule.kind")


def front_points(runs: Sequence[Data], sweeps: Sequence[Data]) -> list[Data]:
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
