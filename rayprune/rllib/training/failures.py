"""Words what stopped a training, or kept it from starting."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.utils.metrics import WEIGHTS_SEQ_NO

from rayprune.errors import NonFiniteError, RaypruneError, ResourceError, RunError
from rayprune.reasons import found_in, reason_of
from rayprune.rllib.callback import learner_reports
from rayprune.rllib.environments.guard import odd_observation_of

LOWER_LR: Final = "Lower `rllib.training.lr`, or set `rllib.training.grad_clip`."


def failure(error: Exception, algorithm: Algorithm, moment: str, way_back: str) -> RaypruneError:
    """Return what the person should read when ``Algorithm.train()`` raised ``error``.

    Args:
        error: what came out of it.
        algorithm: whose Learners are asked whether their weights are finite.
        moment: when it happened, such as ``env step 400``.
        way_back: how to go on.
    """
    ours = found_in(error, RaypruneError)
    broken = ours is None and _has_broken_weights(algorithm)
    if broken or isinstance(ours, NonFiniteError):
        odd = _odd_observation(algorithm)
        if broken or odd:
            what = f"A weight, or what follows from it, became NaN or infinite at {moment}."
            return NonFiniteError(f"{what} {way_back} {odd or LOWER_LR}")
    if ours is not None:
        return type(ours)(f"{str(ours).rstrip('.')} (at {moment}). {way_back}")
    return RunError(f"Training failed at {moment}: {reason_of(error)}. {way_back}")


def check_loss(
    row: Mapping[str, Any],
    updates_before: int,
    algorithm: Algorithm,
    moment: str,
    way_back: str,
    way_out: str = LOWER_LR,
) -> None:
    """Raise NonFiniteError if an iteration's updates ended in a loss that is no number.

    An iteration without updates, such as one whose EnvRunners were lost, has no loss: RLlib's mean
    of nothing is NaN. So is that of an asynchronous Learner that hasn't answered yet, and whose
    other figures are missing with it.

    Args:
        row: `rows.row_of`'s.
        updates_before: those of the iteration before.
        algorithm: whose EnvRunners are asked for what they have observed.
        moment: when it is.
        way_back: how to go on.
        way_out: what to change, unless the observations are to blame.
    """
    figures = row["learner"]
    loss = figures.get("total_loss")
    if loss is None or math.isfinite(loss) or row["updates"] <= updates_before:
        return
    if math.isnan(loss) and math.isnan(figures.get(WEIGHTS_SEQ_NO, math.nan)):
        return
    way_out = _odd_observation(algorithm) or way_out
    told = [f"The loss became {loss} at {moment}.", way_back, way_out]
    raise NonFiniteError(" ".join(filter(None, told)))


def _odd_observation(algorithm: Algorithm) -> str | None:
    """Return a sentence on an observation that was no number, if an EnvRunner has had one."""
    group = algorithm.env_runner_group
    try:
        found = [] if group is None else group.foreach_env_runner(odd_observation_of)
    except Exception:  # they may be what failed
        return None
    return next(filter(None, found), None)


def build(config: AlgorithmConfig) -> Algorithm:
    """Build an algorithm; say what to do where its Learners don't find each other.

    Raises:
        ResourceError: Learners of several nodes could not connect.
    """
    try:
        return config.build_algo()
    except RuntimeError as error:
        if "Gloo" not in str(error):
            raise
        reason = str(error).strip().splitlines()[-1]
        raise ResourceError(
            "The Learners could not connect to each other. On several nodes, each node's own name "
            "must stand for the address that the others know it by (an /etc/hosts that says "
            "127.0.0.1 or 127.0.1.1 doesn't), or GLOO_SOCKET_IFNAME must name its network "
            f"interface, such as eth0, before `ray start`. {reason}"
        ) from error


def _has_broken_weights(algorithm: Algorithm) -> bool:
    try:
        return any(
            not report["finite"]
            for learner in learner_reports(algorithm)
            for report in learner.values()
        )
    except Exception:  # the Learners themselves may be what failed
        return False
