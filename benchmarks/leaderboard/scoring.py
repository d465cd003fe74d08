"""Scoring: normalised scores, interquartile means over runs, and how sure they are.

After Agarwal et al. 2021 (arXiv:2108.13264), as their library rliable does it: runs are drawn with
replacement within each task (the strata), the aggregate is taken of each draw, and its percentiles
are the interval. rliable itself brings statsmodels, arch and seaborn along, and doesn't import with
pandas 3; so this is our own, held against what theirs gave in tests/system/test_leaderboard.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

RESAMPLES: Final = 2000
LEAST_RUNS: Final = 2
"""With a single run there is no interval over runs."""

Array = NDArray[np.float64]
Runs = Mapping[str, Sequence[float]]
"""Task -> score of each run."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval; both ends are None where a task has one run only."""

    value: float
    low: float | None
    high: float | None

    def told(self, digits: int = 2) -> str:
        """Return it as tables show it."""
        if self.low is None or self.high is None:
            return f"{self.value:,.{digits}f}"
        return f"{self.value:,.{digits}f} [{self.low:,.{digits}f}, {self.high:,.{digits}f}]"


def normalised(score: float, dense: float, random: float) -> float:
    """Return a score on the scale on which the dense policy's is 1 and a random policy's 0.

    >>> normalised(-100.0, dense=100.0, random=-200.0)
    0.3333333333333333
    """
    return (score - random) / (dense - random)


def iqm(runs: Runs) -> Estimate:
    """Return the interquartile mean over all runs of all tasks.

    >>> iqm({"a": [0.0, 1.0, 2.0, 100.0]}).value
    1.5
    """
    return _estimate(runs, lambda drawn: stats.trim_mean(drawn, 0.25, axis=1))


def mean(runs: Runs) -> Estimate:
    """Return the mean over all runs of all tasks."""
    return _estimate(runs, lambda drawn: drawn.mean(axis=1))


def improvement(ours: Runs, theirs: Runs) -> Estimate:
    """Return the probability that a run of ours scores above a run of theirs, mean over tasks.

    A tie counts half.

    >>> improvement({"a": [2.0, 3.0]}, {"a": [1.0, 2.0]}).value
    0.875
    """
    tasks = [task for task in ours if task in theirs]
    random = np.random.default_rng(0)
    values, draws = [], []
    for task in tasks:
        x, y = np.asarray(ours[task], float), np.asarray(theirs[task], float)
        values.append(_above(x[None], y[None])[0])
        draws.append(_above(_drawn(x, random), _drawn(y, random)))
    sure = all(min(len(ours[task]), len(theirs[task])) >= LEAST_RUNS for task in tasks)
    return _with_interval(float(np.mean(values)), np.mean(draws, axis=0), sure)


def _above(x: Array, y: Array) -> Array:
    """Return the share of pairs that x wins, shape ``(draws,)``; both are ``(draws, runs)``."""
    wins = (x[:, :, None] > y[:, None, :]) + 0.5 * (x[:, :, None] == y[:, None, :])
    return np.asarray(wins.mean(axis=(1, 2)))


def _estimate(runs: Runs, aggregate: Callable[[Array], Array]) -> Estimate:
    random = np.random.default_rng(0)
    scores = [np.asarray(each, float) for each in runs.values()]
    value = float(aggregate(np.concatenate(scores)[None])[0])
    draws = aggregate(np.concatenate([_drawn(each, random) for each in scores], axis=1))
    return _with_interval(value, draws, all(len(each) >= LEAST_RUNS for each in scores))


def _drawn(scores: Array, random: np.random.Generator) -> Array:
    """Return resamples with replacement, shape ``(draws, runs)``."""
    return scores[random.integers(len(scores), size=(RESAMPLES, len(scores)))]


def _with_interval(value: float, draws: Array, sure: bool) -> Estimate:
    if not sure:
        return Estimate(value, None, None)
    low, high = np.percentile(draws, [2.5, 97.5])
    return Estimate(value, float(low), float(high))


def references(rows: Sequence[Mapping[str, Any]]) -> dict[str, tuple[float, float]]:
    """Return each task's dense IQM over runs and random score, of those that have both.

    Where dense policies are no better than a random one there is no scale: on it the worst would
    be the best.
    """
    dense: dict[str, list[float]] = {}
    random: dict[str, float] = {}
    for row in rows:
        score = row["score"]["mean"]
        if row["arm"] == "dense":
            dense.setdefault(row["task"], []).append(score)
        elif row["arm"] == "random":
            random[row["task"]] = score
    both = {t: (iqm({t: s}).value, random[t]) for t, s in dense.items() if t in random}
    return {task: scale for task, scale in both.items() if scale[0] > scale[1]}


def paired(
    known: Sequence[Mapping[str, Any]], found: Sequence[Mapping[str, Any]]
) -> dict[str, tuple[float, float]]:
    """Return each task's scale by the dense runs of the same seeds as an arm's.

    A seed's runs share their beginning, so a seed that finds a good gait lifts dense and the arm
    alike; beside dense runs of other seeds the arm would look better than it is. Where dense lacks
    one of the seeds, all of its runs count.

    Args:
        known: rows of all arms.
        found: those of the arm.
    """
    dense, wanted = _seeds([row for row in known if row["arm"] == "dense"]), _seeds(found)
    whole = {task for task, seeds in wanted.items() if not seeds <= dense.get(task, set())}
    return references(
        [
            row
            for row in known
            if row["arm"] != "dense"
            or row["task"] in whole
            or row["seed"] in wanted.get(row["task"], ())
        ]
    )


def _seeds(rows: Sequence[Mapping[str, Any]]) -> dict[str, set[int]]:
    """Return the seeds of each task's rows."""
    found: dict[str, set[int]] = {}
    for row in rows:
        found.setdefault(row["task"], set()).add(row["seed"])
    return found
