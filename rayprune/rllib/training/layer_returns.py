"""The return that a policy loses without a layer: the driver measures it for the Learners."""

from __future__ import annotations

import functools
from typing import Any

from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core import COMPONENT_RL_MODULE, DEFAULT_MODULE_ID

from rayprune.pruning.granularity.layer import without
from rayprune.rllib.actors.learners import foreach_learner, policy_of
from rayprune.rllib.evaluation.evaluator import Evaluator


def post_layer_returns(
    algorithm: Algorithm, evaluator: Evaluator, first_seed: int, episodes: int
) -> dict[str, float]:
    """Score layers by the return lost without each, if the Learners wait for that.

    With criterion ``return`` a mask update that is due waits for these scores; it is done at the
    end of the next iteration. Call this after each ``algorithm.train()``; `rayprune train` does.

    Args:
        algorithm: between two iterations.
        evaluator: of its config; it holds the whole policy afterwards.
        first_seed: of the episodes, the same for all.
        episodes: how many for each layer.

    Returns:
        Mean return lost by layer, higher = keep; empty when nothing waits.
    """
    awaited = foreach_learner(algorithm, lambda learner: learner.awaited_units())[0]
    units = awaited.get(DEFAULT_MODULE_ID, [])
    if not units:
        return {}
    policy = policy_of(algorithm)
    weights = policy[COMPONENT_RL_MODULE][DEFAULT_MODULE_ID]

    def earned(state: Any) -> float:
        evaluator.load({**policy, COMPONENT_RL_MODULE: {DEFAULT_MODULE_ID: state}})
        return float(evaluator.evaluate(first_seed, episodes)["mean"])

    lost = {unit.name: -earned(without(weights, unit)) for unit in units}
    whole = earned(weights)
    lost = {name: whole + value for name, value in lost.items()}
    foreach_learner(algorithm, functools.partial(_post, lost=lost))
    return lost


def _post(learner: Any, lost: dict[str, float]) -> None:
    learner.post_layer_returns(DEFAULT_MODULE_ID, lost)
