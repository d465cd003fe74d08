"""What pruning does to learning, from a run's rows alone: pure, and the same for every algorithm.

Two curves are looked at: the *training* returns, ``return_mean`` of each iteration (RLlib's mean
over its last episodes, which lags and smooths), and the *validations*, the IQM of greedy episodes
on seeds of their own, which are fewer and cleaner.

A mask update is an iteration whose ``mask_churn`` is above 0; several within one iteration are
seen as one. Its masks come into force at the end of the iteration: that iteration's training
return is still the old policy's, its validation already the new one's. (DQN and SAC update many
times in an iteration, and so begin to dip within it.)
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rayprune.tracking.record import step_of

SHARES = (0.5, 0.8, 0.9, 0.95)
"""Shares of the reference whose first reaching is told."""

Points = Sequence[tuple[int, float]]
"""A curve: steps, rising, and returns."""


@dataclass(frozen=True, slots=True)
class Dip:
    """What one mask update did to a curve until the next one, or until the run's end."""

    step: int
    before: float
    """The last return before the masks came into force."""
    depth: float
    """``before`` minus the lowest return after it; 0 where none was lower."""
    recovery_steps: int | None
    """Steps until the return was back at ``before`` after its lowest; 0 without a dip; None where
    the next mask update or the run's end came first (censored)."""
    watched_steps: int
    """How long was looked: for a censored dip the recovery takes longer than that."""


def learning_of(rows: Sequence[Mapping[str, Any]], dense: float | None = None) -> dict[str, Any]:
    """Return the block ``learning`` of summary.json.

    Args:
        rows: of results.jsonl, in their order.
        dense: the dense policy's return, which is the reference; without it each curve's peak is.

    Returns:
        ``{"training": curve, "validation": curve}``, a curve None where there are no returns::

            {"reference": 500.0, "reference_is": "dense" | "peak",
             "steps_to": {"50": 12000, ..., "95": null},
             "dips": {"updates": 80, "observed": 78, "deepest": 31.0, "median_depth": 2.5,
                      "recovered": 70, "median_recovery_steps": 4000},
             "updates": [{"step", "before", "depth", "recovery_steps", "watched_steps"}, ...]}

        ``steps_to``: the first step at which the return is at least that share of the reference,
        null if it never was. ``observed``: the updates with a return before and one after.
        ``median_recovery_steps`` takes a censored recovery as longer than any other; null where
        that makes half of them or more. Steps are env steps, or updates where none are sampled.
    """
    updates = [step_of(row) for row in rows if (row.get("mask_churn") or 0) > 0]
    curves = {"training": training_points(rows), "validation": validation_points(rows)}
    return {
        name: _curve(points, updates, dense, after_only=name == "training") if points else None
        for name, points in curves.items()
    }


def training_points(rows: Sequence[Mapping[str, Any]]) -> list[tuple[int, float]]:
    """Return the training returns by step; rows before the first finished episode have none."""
    return [
        (step_of(row), float(row["return_mean"])) for row in rows if _finite(row.get("return_mean"))
    ]


def validation_points(rows: Sequence[Mapping[str, Any]]) -> list[tuple[int, float]]:
    """Return the validation IQMs by step."""
    return [
        (step_of(row), float(row["validation"]["iqm"]))
        for row in rows
        if row.get("validation") and _finite(row["validation"].get("iqm"))
    ]


def steps_to(points: Points, reference: float, share: float) -> int | None:
    """Return the first step with a return of ``share`` of the reference; None if there is none.

    "95 % of" means 5 % of its size below it, also where returns are negative.

    >>> steps_to([(10, 40.0), (20, 90.0), (30, 100.0)], reference=100.0, share=0.9)
    20
    >>> steps_to([(10, -300.0), (20, -150.0)], reference=-100.0, share=0.5)
    20
    """
    floor = reference - (1 - share) * abs(reference)
    return next((step for step, value in points if value >= floor), None)


def dips_of(points: Points, updates: Sequence[int], *, after_only: bool) -> list[Dip]:
    """Return a `Dip` for each mask update with a return before it and one after it.

    Args:
        points: the curve.
        updates: steps of the rows at whose end masks came into force, rising.
        after_only: the return at an update's own step is still the old policy's (training);
            otherwise it is the new one's (validation).

    >>> curve = [(10, 100.0), (20, 70.0), (30, 90.0), (40, 101.0)]
    >>> dips_of(curve, [10], after_only=True)
    [Dip(step=10, before=100.0, depth=30.0, recovery_steps=30, watched_steps=30)]
    """
    steps = [step for step, _ in points]
    cut = bisect_right if after_only else bisect_left
    places = [cut(steps, step) for step in updates]
    found = []
    for step, begin, end in zip(updates, places, [*places[1:], len(points)], strict=False):
        if 0 < begin < end:
            found.append(_dip(step, points[begin - 1][1], points[begin:end]))
    return found


def _dip(step: int, before: float, after: Points) -> Dip:
    values = [value for _, value in after]
    lowest = min(range(len(values)), key=values.__getitem__)
    depth = max(0.0, before - values[lowest])
    back = next((at for at, value in after[lowest:] if value >= before), None)
    recovery = 0 if depth == 0 else None if back is None else back - step
    return Dip(step, before, depth, recovery, after[-1][0] - step)


def over_seeds(blocks: Sequence[Mapping[str, Any]], curve: str = "training") -> dict[str, Any]:
    """Return mean and standard deviation over runs that differ in their seeds.

    Args:
        blocks: `learning_of`'s, one a run.
        curve: ``training`` or ``validation``.

    Returns:
        ``{"runs": n, "steps_to": {"50": {"mean", "sd", "reached"}, ...}, "deepest": {...}}``.
        Where a run never reached a share, mean and sd are of those that did, and ``reached`` says
        how many that are. The standard deviation is the sample's (n - 1); null for a single run.
    """
    curves = [block[curve] for block in blocks if block.get(curve)]
    return {
        "runs": len(curves),
        "steps_to": {
            key: _spread([one["steps_to"][key] for one in curves]) for key in map(_key, SHARES)
        },
        "deepest": _spread([one["dips"]["deepest"] for one in curves]),
    }


def _spread(values: Sequence[float | None]) -> dict[str, Any]:
    known = [value for value in values if value is not None]
    return {
        "mean": float(np.mean(known)) if known else None,
        "sd": float(np.std(known, ddof=1)) if len(known) > 1 else None,
        "reached": len(known),
    }


def _curve(
    points: Points, updates: Sequence[int], dense: float | None, *, after_only: bool
) -> dict[str, Any]:
    reference = max(value for _, value in points) if dense is None else dense
    dips = dips_of(points, updates, after_only=after_only)
    return {
        "reference": reference,
        "reference_is": "peak" if dense is None else "dense",
        "steps_to": {_key(share): steps_to(points, reference, share) for share in SHARES},
        "dips": _summary(dips, len(updates)),
        "updates": [
            {name: getattr(dip, name) for name in Dip.__dataclass_fields__} for dip in dips
        ],
    }


def _summary(dips: Sequence[Dip], updates: int) -> dict[str, Any]:
    depths = [dip.depth for dip in dips]
    times = [math.inf if dip.recovery_steps is None else dip.recovery_steps for dip in dips]
    median = float(np.median(times)) if times else math.inf
    return {
        "updates": updates,
        "observed": len(dips),
        "deepest": max(depths, default=None),
        "median_depth": float(np.median(depths)) if depths else None,
        "recovered": sum(math.isfinite(time) for time in times),
        "median_recovery_steps": median if math.isfinite(median) else None,
    }


def _key(share: float) -> str:
    return f"{100 * share:g}"


def _finite(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
