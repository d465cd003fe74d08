"""Whether what a config trains can be exported: asked when training starts, not when it is over."""

from __future__ import annotations

from collections.abc import Iterator

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from rayprune.deploy.formats import FORMATS, format_named
from rayprune.deploy.policy.capture import capture, plain_copy
from rayprune.deploy.policy.policy import DeployablePolicy
from rayprune.errors import first_line
from rayprune.rllib.evaluation.evaluator import Evaluator
from rayprune.rllib.export.policy import deployable


def export_limits(config: AlgorithmConfig) -> list[str]:
    """Return a sentence if what ``config`` trains can't be exported, or not to a format.

    Args:
        config: with its environment, of which one is made.
    """
    evaluator = Evaluator(config)
    try:
        policy = plain_copy(deployable(evaluator))
        capture(policy)
    except Exception as error:  # a module's own code runs here, and a run doesn't depend on it
        return [f"This policy can be trained, but not exported: {first_line(error)}."]
    finally:
        evaluator.close()
    return list(_format_limits(policy))


def _format_limits(policy: DeployablePolicy) -> Iterator[str]:
    for chosen in map(format_named, FORMATS):
        try:
            chosen.check_policy(policy)
        except Exception as error:
            told = f"This policy can be trained and exported, but not to {chosen.label}"
            yield f"{told}: {first_line(error)}."
