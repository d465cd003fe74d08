"""Environment wrappers that normalise by statistics of their own: found, and refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import gymnasium as gym
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from rayprune.rllib.evaluation import make_env

_STATISTICS: Final = "RunningMeanStd"
"""What gymnasium, Stable-Baselines3 and CleanRL call the class of such statistics."""


def wrapper_faults(config: AlgorithmConfig) -> list[str]:
    """Return the fault of each wrapper that keeps running statistics in its environment.

    Args:
        config: one of its environments is made, and closed again.
    """
    faults = []
    for env in _environments(config):
        try:
            faults += [_fault(config.env, wrapper) for wrapper in running_wrappers(env)]
        finally:
            env.close()
    return faults


def running_wrappers(env: Any) -> Iterator[Any]:
    """Yield the layers of an environment that learn statistics as it runs, outermost first.

    Those whose ``update_running_mean`` is off are constant, and do no harm.
    """
    layer = env
    while layer is not None:
        held = [type(value).__name__ for value in vars(layer).values()]
        if _STATISTICS in held and getattr(layer, "update_running_mean", True):
            yield layer
        inside = vars(layer).get("env")
        if inside is None and vars(layer).get("envs"):
            inside = layer.envs[0]
        layer = inside


def _environments(config: AlgorithmConfig) -> Iterator[Any]:
    yield make_env(config)
    if config.gym_env_vectorize_mode != "vector_entry_point" or not isinstance(config.env, str):
        return
    mode = gym.VectorizeMode.VECTOR_ENTRY_POINT
    yield gym.make_vec(config.env, num_envs=1, vectorization_mode=mode, **config.env_config)


def _fault(env: Any, wrapper: Any) -> str:
    name = type(wrapper).__name__
    instead = (
        "`normalise: {rewards: true}`"
        if "eward" in name
        else "`rllib.env_runners.observation_filter: MeanStdFilter`"
    )
    return (
        f"`env` {env!r} has {name} around it, whose statistics each environment gathers for "
        "itself: an evaluation would begin without any, a resumed run would differ from one that "
        f"wasn't stopped, and an export would lack them. Leave it out, and set {instead}."
    )
