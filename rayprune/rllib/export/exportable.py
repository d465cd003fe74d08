"""Whether what a config trains can be exported: asked when training starts, not when it is over."""

from __future__ import annotations

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from rayprune.deploy.formats import check_c
from rayprune.deploy.policy.capture import capture, plain_copy
from rayprune.rllib.evaluation.evaluator import Evaluator
from rayprune.rllib.export.policy import deployable


def export_limits(config: AlgorithmConfig) -> list[str]:
    """Return a sentence if what ``config`` trains can't be exported, or not to C.

    Args:
        config: with its environment, of which one is made.
    """
    evaluator = Evaluator(config)
    try:
        policy = plain_copy(deployable(evaluator))
        capture(policy)
    except Exception as error:  # a module's own code runs here, and a run doesn't depend on it
        return [f"This policy can be trained, but not exported: {_reason(error)}"]
    finally:
        evaluator.close()
    try:
        check_c(policy)
    except Exception as error:
        return [f"This policy can be trained and exported, but not to C: {_reason(error)}"]
    return []


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else f"{type(error).__name__}."
