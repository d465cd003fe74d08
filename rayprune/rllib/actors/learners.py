"""Calls a function on every Learner, local or remote, and raises what they raise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray.exceptions import RayTaskError
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core import COMPONENT_LEARNER, COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.rllib.core.learner.learner_group import LearnerGroup


def foreach_learner(algorithm: Algorithm, function: Callable[[Any], Any]) -> list[Any]:
    """Return ``function(learner)`` of each Learner, in the order of their ranks.

    RLlib hands the errors of remote Learners back as values, where they are easily overlooked.
    """
    answers = learner_group(algorithm).foreach_learner(_Call(function))
    values = [answer.get() if hasattr(answer, "ok") else answer for answer in answers]
    for value in values:
        if isinstance(value, RayTaskError):
            raise value.cause if isinstance(value.cause, Exception) else value
        if isinstance(value, Exception):
            raise value
    return values


def learner_group(algorithm: Algorithm) -> LearnerGroup:
    """Return the algorithm's LearnerGroup, which a built one always has."""
    group = algorithm.learner_group
    assert group is not None
    return group


def policy_of(algorithm: Algorithm) -> dict[str, Any]:
    """Return the Learners' newest policy with the connectors' states, as `Evaluator.load` wants."""
    learners = learner_group(algorithm).get_state(
        components=f"{COMPONENT_LEARNER}/{COMPONENT_RL_MODULE}", inference_only=True
    )
    weights = learners[COMPONENT_LEARNER][COMPONENT_RL_MODULE][DEFAULT_MODULE_ID]
    state: dict[str, Any] = {COMPONENT_RL_MODULE: {DEFAULT_MODULE_ID: weights}}
    if algorithm.env_runner is not None:
        connectors = algorithm.env_runner.get_state(not_components=[COMPONENT_RL_MODULE])
        state.update({key: value for key, value in connectors.items() if "connector" in key})
    return state


class _Call:
    """A function of one argument, whatever RLlib passes beside it."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function = function

    def __call__(self, learner: Any, *_: Any, **__: Any) -> Any:
        return self._function(learner)
