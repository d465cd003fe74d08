"""Population-based bandits, Ray Tune's own, on a sweep's space."""

from __future__ import annotations

from typing import Any

from ray.tune.schedulers import TrialScheduler
from ray.tune.schedulers.pb2 import PB2

from rayprune.search.domains import Range
from rayprune.search.space import Space


def make_pb2(
    *, metric: str, mode: str, space: Space, interval: float, synch: bool
) -> TrialScheduler:
    """Return Tune's PB2, on the clock of env steps.

    Parker-Holder et al. 2020 (arXiv:2002.02518). It moves real numbers, on a linear scale; what the
    space has beside them stays as each trial drew it, or as its donor had it.

    Args:
        metric: key of the result to optimise.
        mode: ``max`` or ``min``.
        space: with a range of real numbers in it.
        interval: env steps between two decisions on a trial.
        synch: whether trials wait for each other.
    """
    bounds: dict[str, Any] = {
        key: [domain.low, domain.high]
        for key, domain in space.items()
        if isinstance(domain, Range) and not domain.whole
    }
    scheduler: TrialScheduler = PB2(
        time_attr="env_steps",
        metric=metric,
        mode=mode,
        perturbation_interval=interval,
        hyperparam_bounds=space.apply({}, bounds),
        log_config=False,
        synch=synch,
    )
    return scheduler
