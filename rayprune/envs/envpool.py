"""Gymnasium's environments in EnvPool's C++ engines, many at once; needs ``rayprune[envpool]``.

In a YAML, by the environment's own name after ``EnvPool/``::

    env: "rayprune.envs.envpool:EnvPool/Hopper-v5"
    rllib:
      env_runners: {num_envs_per_env_runner: 8, gym_env_vectorize_mode: vector_entry_point}

Sampling goes on in EnvPool; evaluations, exports and certificates use the plain environment, so
that their seeds mean what they mean elsewhere. `NAMES` are those that were held against the plain
environment, step by step from equal states; LunarLander in flight, for its ground is drawn.

What EnvPool's engines do differently: states are drawn from random generators of their own, so
that a seed gives other episodes than in the plain environment; rewards have float32's precision;
and an episode that fails at the very step that it would be cut off at counts as cut off.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Final

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec, register
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from rayprune.extras import needs

Array = NDArray[Any]

PREFIX: Final = "EnvPool/"
NAMES: Final = (
    "Acrobot-v1",
    "CartPole-v1",
    "MountainCar-v0",
    "MountainCarContinuous-v0",
    "Pendulum-v1",
    "LunarLander-v3",
    "HalfCheetah-v5",
    "Hopper-v5",
    "InvertedDoublePendulum-v5",
    "InvertedPendulum-v5",
    "Reacher-v5",
    "Swimmer-v5",
    "Walker2d-v5",
)
"""Environments of gymnasium that EnvPool steps alike, within rounding."""


class EnvPool(VectorEnv[Array, Array, Array]):
    """A pool of environments, as gymnasium's vectors are: it resets at the step after an end.

    Observations, rewards and spaces are of the plain environment's types; infos are left empty.

    Args:
        name: gymnasium's id.
        num_envs: how many.
        max_episode_steps: after which an episode is cut off; None as the plain environment's.
        others: the plain environment's own settings, which must be its defaults.

    Raises:
        ImportError: EnvPool isn't installed.
        ValueError: a setting that EnvPool isn't known to follow.
    """

    def __init__(
        self,
        name: str,
        num_envs: int = 1,
        max_episode_steps: int | None = None,
        **others: Any,
    ) -> None:
        _check(name, others)
        plain = gym.make(name)
        self.metadata = {**plain.metadata, "autoreset_mode": AutoresetMode.NEXT_STEP}
        self.num_envs = num_envs
        self.single_observation_space = plain.observation_space
        self.single_action_space = plain.action_space
        self.observation_space = batch_space(plain.observation_space, num_envs)
        self.action_space = batch_space(plain.action_space, num_envs)
        plain.close()
        self._name = name
        # An EnvRunner has one core; more of them give more.
        self._settings = {"num_envs": num_envs, "num_threads": 1}
        if max_episode_steps is not None:
            self._settings["max_episode_steps"] = max_episode_steps
        self._pool = self._made(range(num_envs))

    def reset(
        self, *, seed: int | list[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Begin an episode in each; environment i is seeded with ``seed + i``.

        A seed makes a new pool: EnvPool takes seeds when it is made, and then only.
        """
        if seed is not None:
            self._pool = self._made(_seeds(seed, self.num_envs))
        return self._seen(self._pool.reset()[0]), {}

    def step(self, actions: Any) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Act in each; where an episode had ended, begin a new one instead."""
        given = np.ascontiguousarray(actions, self._pool.action_space.dtype)
        observations, rewards, terminated, truncated, _ = self._pool.step(given)
        return self._seen(observations), rewards.astype(np.float64), terminated, truncated, {}

    def close_extras(self, **_: Any) -> None:
        """End the pool's threads."""
        self._pool.close()

    def _made(self, seeds: Any) -> Any:
        try:
            import envpool
        except ImportError as error:
            raise ImportError(f"{needs(self._name, 'envpool')}.", name="envpool") from error
        return envpool.make_gymnasium(self._name, seed=list(seeds), **self._settings)

    def _seen(self, observations: Array) -> Array:
        return observations.astype(self.single_observation_space.dtype, copy=False)


def _seeds(seed: int | list[int], num_envs: int) -> list[int]:
    given = range(seed, seed + num_envs) if isinstance(seed, int) else seed
    # EnvPool keeps them as C ints.
    return [int(one) % 2**31 for one in given]


def _check(name: str, settings: Mapping[str, Any]) -> None:
    own = gym.spec(name).kwargs
    unknown = sorted(key for key, value in settings.items() if key not in own or own[key] != value)
    if unknown:
        raise ValueError(
            f"`env_config` {unknown} can't be followed by EnvPool's {name}, which does what the "
            f"plain environment does by default. Leave it out, or use the plain one: `env: {name}` "
            "with `gym_env_vectorize_mode: sync`."
        )


def _register(plain: EnvSpec) -> None:
    """Register a plain environment once more, with a pool as its vector."""
    register(
        id=f"{PREFIX}{plain.id}",
        entry_point=plain.entry_point,
        reward_threshold=plain.reward_threshold,
        max_episode_steps=plain.max_episode_steps,
        kwargs=dict(plain.kwargs),
        vector_entry_point=functools.partial(EnvPool, plain.id),
    )


for _name in NAMES:
    _register(gym.spec(_name))
