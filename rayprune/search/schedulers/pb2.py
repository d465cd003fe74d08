"""Population-based bandits, Ray Tune's own, on a sweep's space."""

from __future__ import annotations

import importlib.util
from typing import Any

from ray.tune.schedulers import TrialScheduler

from rayprune.errors import InputError
from rayprune.search.domains import Range
from rayprune.search.sweep_spec import Sweep


def make_pb2(sweep: Sweep, synch: bool) -> TrialScheduler:
    """Return Tune's PB2 for a sweep's first objective.

    Parker-Holder et al. 2020 (arXiv:2002.02518). It moves real numbers, on a linear scale; what the
    space has beside them stays as each trial drew it, or as its donor had it.

    Args:
        sweep: of one objective, with a range in its space.
        synch: whether trials wait for each other.

    Raises:
        InputError: scikit-learn, which PB2's Gaussian process is from, is not installed.
    """
    if importlib.util.find_spec("sklearn") is None:
        raise InputError(
            "`search.method: pb2` needs scikit-learn: pip install 'rayprune[pb2]', or use `pbt`."
        )
    from ray.tune.schedulers.pb2 import PB2

    bounds: dict[str, Any] = {
        key: [domain.low, domain.high]
        for key, domain in sweep.space.items()
        if isinstance(domain, Range) and not domain.whole
    }
    first = sweep.objectives.names[0]
    scheduler: TrialScheduler = PB2(
        time_attr="env_steps",
        metric=first,
        mode=sweep.objectives.directions[first],
        perturbation_interval=sweep.search.interval,
        hyperparam_bounds=sweep.space.apply({}, bounds),
        log_config=False,
        synch=synch,
    )
    return scheduler
