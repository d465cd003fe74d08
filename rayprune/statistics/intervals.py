"""Interquartile means and bootstrap intervals of returns."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

RESAMPLES = 2000


def iqm(returns: Sequence[float]) -> float:
    """Return the interquartile mean: the mean of the middle half.

    Agarwal et al. 2021 (arXiv:2108.13264).

    >>> iqm([0.0, 10.0, 20.0, 1000.0])
    15.0
    """
    return float(_interquartile_mean(np.asarray(returns, dtype=float), 0))


def summarise(returns: Sequence[float], over: str = "episodes") -> dict[str, Any]:
    """Return mean, IQM and the IQM's 95 % percentile-bootstrap interval.

    Args:
        returns: one return per episode (or per run), shape ``(n,)``, n >= 1.
        over: what the interval is over, ``"episodes"`` or ``"runs"``.

    The resampling has its own fixed seed: equal returns give equal intervals.
    """
    values = np.asarray(returns, dtype=float)
    return {
        over: len(values),
        "mean": float(values.mean()),
        "iqm": iqm(values.tolist()),
        "ci95": _interval(values),
        "ci95_over": over,
    }


def paired_gap(before: Sequence[float], after: Sequence[float]) -> dict[str, Any]:
    """Return how much lower the IQM is afterwards, with a paired bootstrap's 95 % interval.

    Both series are of the same episodes (seeds), which are resampled together: what makes an
    episode easy or hard for both cancels out.

    Args:
        before: returns, shape ``(n,)``.
        after: returns in the same order, shape ``(n,)``.

    >>> paired_gap([1.0, 5.0, 9.0, 13.0], [0.0, 4.0, 8.0, 12.0])
    {'iqm': 1.0, 'ci95': [1.0, 1.0], 'ci95_over': 'episodes'}
    """
    return _paired([(1.0, before), (-1.0, after)])


def gap_difference(
    first: tuple[Sequence[float], Sequence[float]], second: tuple[Sequence[float], Sequence[float]]
) -> dict[str, Any]:
    """Return how much larger the first gap is than the second, all four series being paired.

    Args:
        first: returns before and after.
        second: likewise.
    """
    (before, after), (other_before, other_after) = first, second
    return _paired([(1.0, before), (-1.0, after), (-1.0, other_before), (1.0, other_after)])


def _paired(series: Sequence[tuple[float, Sequence[float]]]) -> dict[str, Any]:
    """Return a signed sum of IQMs, with its interval over episodes that are drawn together."""
    signs = np.array([sign for sign, _ in series])
    values = np.asarray([returns for _, returns in series], dtype=float)
    count = values.shape[1]
    drawn = np.random.default_rng(0).integers(count, size=(RESAMPLES, count))
    # (series, resamples, episodes) -> one sum for each resample
    sums = signs @ _interquartile_mean(values[:, drawn], 2)
    low, high = np.percentile(sums, [2.5, 97.5])
    return {
        "iqm": float(signs @ _interquartile_mean(values, 1)),
        "ci95": [float(low), float(high)],
        "ci95_over": "episodes",
    }


def _interval(values: np.ndarray[Any, Any]) -> list[float]:
    if len(values) < 2:
        return [float(values[0]), float(values[0])]
    from scipy import stats

    with warnings.catch_warnings():
        # Equal returns (CartPole's 500) give a degenerate distribution, which is no fault.
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        result = stats.bootstrap(
            (values,),
            _interquartile_mean,
            n_resamples=RESAMPLES,
            method="percentile",
            rng=np.random.default_rng(0),
        )
    return [float(result.confidence_interval.low), float(result.confidence_interval.high)]


def _interquartile_mean(values: np.ndarray[Any, Any], axis: int) -> Any:
    # scipy takes most of a second to import, and each actor imports this file.
    from scipy import stats

    return stats.trim_mean(values, proportiontocut=0.25, axis=axis)
