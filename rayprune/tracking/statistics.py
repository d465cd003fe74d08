"""Interquartile means and bootstrap intervals of returns."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

RESAMPLES = 2000


def iqm(returns: Sequence[float]) -> float:
    """Return the interquartile mean: the mean of the middle half.

    Agarwal et al. 2021 (arXiv:2108.13264).

    >>> iqm([0.0, 10.0, 20.0, 1000.0])
    15.0
    """
    return float(stats.trim_mean(np.asarray(returns, dtype=float), proportiontocut=0.25))


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


def _interval(values: np.ndarray[Any, Any]) -> list[float]:
    if len(values) < 2:
        return [float(values[0]), float(values[0])]
    with warnings.catch_warnings():
        # Equal returns (CartPole's 500) give a degenerate distribution, which is no fault.
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        result = stats.bootstrap(
            (values,),
            lambda sample, axis: stats.trim_mean(sample, 0.25, axis=axis),
            n_resamples=RESAMPLES,
            method="percentile",
            rng=np.random.default_rng(0),
        )
    return [float(result.confidence_interval.low), float(result.confidence_interval.high)]
