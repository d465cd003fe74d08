"""How long a sweep takes, reckoned from a short calibration. Pure arithmetic."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rayprune.search.methods import METHODS
from rayprune.search.sweep_spec import Sweep


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What one trial took, alone on its resources; seconds of wall time."""

    start_s: float
    """To build the algorithm."""
    step_s: float
    """Of training, per env step."""
    env_steps: int
    """How many were trained for it."""
    evaluation_s: float
    """One measurement on the validation seeds, by a policy that has hardly learned."""
    longest_evaluation_s: float | None
    """The same if every episode went on to its environment's limit; None where there is none."""
    save_s: float
    restore_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Seconds, each as (least, most): episodes as short as now, or as long as can be."""

    dense_s: tuple[float, float]
    """Of the dense reference, which is trained before the population; zeros where there is none."""
    trial_s: tuple[float, float]
    sweep_s: tuple[float, float]
    rounds: int
    """How often the cluster is filled to give each trial its turn."""


def forecast(sweep: Sweep, at_once: int, calibration: Calibration) -> Forecast:
    """Reckon a sweep's time.

    Args:
        sweep: what runs.
        at_once: trials that run side by side.
        calibration: of one trial.

    Returns:
        Bounds. Left out is what isn't known before: trials that are stopped early (`mo_asha`,
        `asha`), that die and start again, and how much trials slow each other down on shared cores.
    """
    rounds = math.ceil(sweep.trials / at_once)
    least, most = (_trial(sweep, rounds, calibration, longest) for longest in (False, True))
    dense = tuple(_dense(sweep, calibration, longest) for longest in (False, True))
    return Forecast(
        dense_s=(dense[0], dense[1]),
        trial_s=(least, most),
        sweep_s=(dense[0] + rounds * least, dense[1] + rounds * most),
        rounds=rounds,
    )


def _trial(sweep: Sweep, rounds: int, calibration: Calibration, longest: bool) -> float:
    steps, interval = sweep.experiment.stop.env_steps or 0, sweep.search.interval
    intervals = math.ceil(steps / interval)
    each = _evaluation(calibration, longest) + calibration.save_s
    if rounds > 1 and METHODS[sweep.search.method].copies:
        # Members take turns on the actors: each turn builds an algorithm and restores a checkpoint.
        each += calibration.start_s + calibration.restore_s
    return calibration.start_s + steps * calibration.step_s + intervals * each


def _dense(sweep: Sweep, calibration: Calibration, longest: bool) -> float:
    """Return the time of the dense twin that is trained first, 0 where none is."""
    evaluation = sweep.experiment.evaluation
    needed = sweep.objectives.needs_dense_return and evaluation.dense is None
    if not needed and evaluation.dense != "train":
        return 0.0
    steps = sweep.experiment.stop.env_steps or 0
    # At its end it is measured on validation and on test seeds.
    measured = (steps // evaluation.every if evaluation.every else 0) + 2
    once = _evaluation(calibration, longest)
    return calibration.start_s + steps * calibration.step_s + measured * once


def _evaluation(calibration: Calibration, longest: bool) -> float:
    if longest and calibration.longest_evaluation_s is not None:
        return max(calibration.longest_evaluation_s, calibration.evaluation_s)
    return calibration.evaluation_s
