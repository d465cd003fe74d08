"""Words what stopped a training, or kept it from starting."""

from __future__ import annotations

from ray.exceptions import RayTaskError
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from rayprune.errors import NonFiniteError, RaypruneError, ResourceError, RunError
from rayprune.rllib.callback import learner_reports


def failure(error: Exception, algorithm: Algorithm, moment: str, way_back: str) -> RaypruneError:
    """Return what the person should read when ``Algorithm.train()`` raised ``error``.

    Args:
        error: what came out of it.
        algorithm: whose Learners are asked whether their weights are finite.
        moment: when it happened, such as ``env step 400``.
        way_back: how to go on.
    """
    cause = error.cause if isinstance(error, RayTaskError) else error
    where = f"at {moment}"
    if isinstance(cause, RaypruneError):
        return type(cause)(f"{cause} ({where}). {way_back}")
    if _has_broken_weights(algorithm):
        return NonFiniteError(
            f"A weight became NaN or infinite {where}. {way_back} "
            "Lower `rllib.training.lr`, or set `rllib.training.grad_clip`."
        )
    reason = str(cause).strip().splitlines() or [""]
    return RunError(f"Training failed {where}: {type(cause).__name__}: {reason[-1]} {way_back}")


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
