"""One environment as a config describes it: how it is made, reset, and which spaces it has."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.env.env_context import EnvContext
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.tune.registry import ENV_CREATOR, _global_registry

from rayprune.errors import EnvError
from rayprune.reasons import RAISED, reason_of
from rayprune.rllib.environments.guard import Guarded, env_name, guard, most_steps


def make_env(config: AlgorithmConfig) -> gym.Env[Any, Any]:
    """Make one environment as ``config`` describes it."""
    context = EnvContext(config.env_config, worker_index=0)
    if isinstance(config.env, str) and _global_registry.contains(ENV_CREATOR, config.env):
        return _global_registry.get(ENV_CREATOR, config.env)(context)
    if callable(config.env):
        return config.env(context)
    assert config.env is not None
    return gym.make(config.env, **config.env_config)


def guarded_env(config: AlgorithmConfig) -> Guarded:
    """Make one environment in which a policy is measured: its faults and endless episodes are told.

    Raises:
        EnvError: its constructor failed.
    """
    try:
        env = make_env(config)
    except RAISED as error:
        given = f"`env_config` {dict(config.env_config)}"
        raise EnvError(
            f"Environment {env_name(config)!r} can't be made with {given}: {reason_of(error)}."
        ) from error
    return Guarded(env, env_name(config), most_steps(config))


def lone_env_runner(config: AlgorithmConfig) -> Any:
    """Build an EnvRunner with one environment and no exploration, apart from those that train.

    The environment is a plain one, also where training steps a vector of its own kind.

    Args:
        config: the algorithm's, which is left as it is.
    """
    own = config.copy(copy_frozen=False)
    own.env_runners(
        num_env_runners=0,
        num_envs_per_env_runner=1,
        explore=False,
        gym_env_vectorize_mode=gym.VectorizeMode.SYNC,
    )
    own.callbacks_class = []  # type: ignore[assignment]  # RLlib takes a list too
    env_runner = (own.env_runner_cls or SingleAgentEnvRunner)(config=own, worker_index=0)
    guard(env_runner, most_steps(own))
    return env_runner


def spaces_of(config: AlgorithmConfig) -> Any:
    """Return RLlib's dict of spaces: of the environment, and as the module sees them.

    They come from an EnvRunner, because connectors may change what the module observes.
    """
    env_runner = lone_env_runner(config)
    try:
        return env_runner.get_spaces()
    finally:
        env_runner.stop()


def start_episode(env: gym.Env[Any, Any], seed: int) -> SingleAgentEpisode:
    """Reset an environment by a seed, and open an episode of it."""
    obs, info = env.reset(seed=seed)
    return open_episode(env, obs, info)


def open_episode(env: gym.Env[Any, Any], obs: Any, info: dict[str, Any]) -> SingleAgentEpisode:
    """Open an episode that begins with what the environment's ``reset`` returned."""
    episode = SingleAgentEpisode(
        observation_space=env.observation_space, action_space=env.action_space
    )
    episode.add_env_reset(observation=obs, infos=info)
    return episode
