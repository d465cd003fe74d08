"""Environments that are vectors by themselves (``gym_env_vectorize_mode: vector_entry_point``)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import gymnasium as gym
from gymnasium.vector import AutoresetMode
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from rayprune.rllib.connectors.encoding import short
from rayprune.rllib.environments.environment import make_env
from rayprune.rllib.environments.guard import env_name

_SETTING: Final = "`rllib.env_runners.gym_env_vectorize_mode`"


def is_vector(config: AlgorithmConfig) -> bool:
    """Whether EnvRunners step one vector that gymnasium registers beside the environment."""
    mode = gym.VectorizeMode(config.gym_env_vectorize_mode)
    return isinstance(config.env, str) and mode is gym.VectorizeMode.VECTOR_ENTRY_POINT


def make_vector(config: AlgorithmConfig) -> Any:
    """Make a vector of one, as an EnvRunner does."""
    assert isinstance(config.env, str)
    mode = gym.VectorizeMode.VECTOR_ENTRY_POINT
    return gym.make_vec(config.env, num_envs=1, vectorization_mode=mode, **config.env_config)


def vector_faults(config: AlgorithmConfig) -> list[str]:
    """Return what keeps RLlib from learning from a vector, or a policy from being evaluated.

    Args:
        config: one of its environments is made, and one vector; both are closed again.
    """
    if not is_vector(config):
        return []
    plain = make_env(config)
    try:
        return list(_vector_faults(plain, config))
    finally:
        plain.close()


def _vector_faults(plain: Any, config: AlgorithmConfig) -> Iterator[str]:
    # gym.spec wouldn't take the module before an id.
    if plain.spec.vector_entry_point is None:
        yield (
            f"{_SETTING} is 'vector_entry_point', but `env` {config.env!r} is registered without "
            "one. Leave it out, or set 'async' for environments in processes of their own; "
            "`rayprune.envs.envpool` has vectors of some of gymnasium's environments."
        )
        return
    vector = make_vector(config)
    try:
        yield from _reset_faults(vector, config)
        yield from _space_faults(vector, plain, config)
    finally:
        vector.close()


def _reset_faults(vector: Any, config: AlgorithmConfig) -> Iterator[str]:
    mode = vector.metadata.get("autoreset_mode")
    if mode is not AutoresetMode.NEXT_STEP:
        # RLlib takes the step after an end for a reset: it would lose one, or learn across ends.
        yield (
            f"`env` {env_name(config)!r}: its vector must begin an episode at the step after an "
            f"end, but its `metadata['autoreset_mode']` is {mode}. Make it "
            "`gymnasium.vector.AutoresetMode.NEXT_STEP`, which is what RLlib reads."
        )


def _space_faults(vector: Any, plain: Any, config: AlgorithmConfig) -> Iterator[str]:
    for name in ("observation_space", "action_space"):
        one, other = getattr(vector, f"single_{name}"), getattr(plain, name)
        if _form(one) != _form(other):
            yield (
                f"`env` {env_name(config)!r}: its vector's {name} is {short(one)}, but a single "
                f"environment's, in which the policy is evaluated, is {short(other)}. Make them "
                "alike."
            )


def _form(space: gym.Space[Any]) -> Any:
    """Return what a network depends on: bounds may differ, as infinities often do."""
    if isinstance(space, gym.spaces.Box):
        return space.shape, space.dtype
    return space
