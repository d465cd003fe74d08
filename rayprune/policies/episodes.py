"""Episodes of a policy in a gymnasium environment: what it observed, and its returns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import gymnasium as gym
import numpy as np

from rayprune.deploy.policy.interface import Array
from rayprune.deploy.policy.policy import DeployablePolicy
from rayprune.deploy.policy.runs import draw_noise, module_run
from rayprune.errors import EnvError, InputError, shown
from rayprune.extras import extra_for, pip_line, unknown_env
from rayprune.import_path import search_here
from rayprune.policies.spaces import Space, leaves
from rayprune.reasons import RAISED, reason_of

MOST_STEPS: Final = 10_000
"""Observations that are recorded at most."""
_MOST_BYTES: Final = 2**26
SAMPLED: Final = 1000
"""Observations that stand for those of an environment which isn't known."""


class Episodes(NamedTuple):
    """What came of some episodes."""

    observations: list[Array]
    """By leaf of the space, each ``(steps, ...)``."""
    returns: list[float]
    """Of those that ended."""


@contextmanager
def made(env: str, env_config: Mapping[str, Any]) -> Iterator[gym.Env[Any, Any]]:
    """Make an environment for a while.

    Args:
        env: a gymnasium id; ``module:Id`` imports the module first.
        env_config: keyword arguments of its constructor.

    Raises:
        InputError: there is no such environment, its module can't be imported, or its constructor
            failed.
        EnvError: it can't be closed.
    """
    search_here()
    try:
        environment = gym.make(env, **env_config)
    except gym.error.Error as error:
        raise InputError(f"`--env` {env!r} is unknown: {unknown_env(env, error)}") from error
    except RAISED as error:
        given = f" with `--env-config` {dict(env_config)}" if env_config else ""
        raise InputError(
            f"`--env` {env!r} can't be made{given}: {reason_of(error)}.{_way_out(error, env)}"
        ) from error
    try:
        yield environment
    finally:
        with _told(environment):
            environment.close()


def _way_out(error: BaseException, env: str) -> str:
    extra = extra_for(error)
    if extra is not None:
        return f" {pip_line(extra)} brings it."
    if isinstance(error, ImportError) and ":" in env:
        return " Install the module, or put its folder on PYTHONPATH."
    return " Check `--env-config`."


def play(
    policy: DeployablePolicy, env: gym.Env[Any, Any], first_seed: int, episodes: int
) -> Episodes:
    """Play episodes, one for each seed from the first, until they end or enough is recorded.

    Args:
        policy: in eval mode, without noise.
        env: of its spaces.
        first_seed: of the environment's resets.
        episodes: how many.

    Raises:
        EnvError: the environment raised.
    """
    run, steps, returns = module_run(policy), list[list[Array]](), list[float]()
    size = 0
    for seed in range(first_seed, first_seed + episodes):
        with _told(env):
            observation, _ = env.reset(seed=seed)
        total, over = 0.0, False
        while not over and len(steps) < MOST_STEPS and size < _MOST_BYTES:
            given = _seen(policy, env, observation)
            steps.append(given)
            size += sum(leaf.nbytes for leaf in given)
            action = run(given)[0][0]
            with _told(env):
                observation, reward, ended, cut, _ = env.step(action)
                total, over = total + float(reward), ended or cut
        if not over:
            break
        returns.append(total)
    return Episodes([np.concatenate(parts) for parts in zip(*steps, strict=True)], returns)


def _seen(policy: DeployablePolicy, env: gym.Env[Any, Any], observation: Any) -> list[Array]:
    """Return an observation as a policy's inputs, a batch of one.

    Raises:
        EnvError: it isn't of the environment's own space, or no number.
    """
    try:
        given = policy.interface.leaves(_batched(env.observation_space, observation))
    except (InputError, KeyError, TypeError, ValueError) as error:
        raise EnvError(
            f"Environment {_name(env)!r} gave {shown(observation)}, which isn't of its own "
            f"`observation_space` {env.observation_space}."
        ) from error
    if any(leaf.dtype.kind == "f" and np.isnan(leaf).any() for leaf in given):
        raise EnvError(f"Environment {_name(env)!r} gave an observation with NaN in it.")
    return given


@contextmanager
def _told(env: gym.Env[Any, Any]) -> Iterator[None]:
    """Say what an environment raises as its own.

    Raises:
        EnvError: it raised.
    """
    try:
        yield
    except RAISED as error:
        raise EnvError(f"Environment {_name(env)!r} failed: {reason_of(error)}.") from error


def _name(env: gym.Env[Any, Any]) -> str:
    return env.spec.id if env.spec is not None else type(env.unwrapped).__name__


def sampled(policy: DeployablePolicy, space: Space, count: int = SAMPLED) -> list[Array]:
    """Return observations drawn from a space, where no environment is known."""
    space.seed(0)
    drawn = [[leaf for _, leaf in _parts(space, space.sample())] for _ in range(count)]
    ports = policy.interface.observations
    return [
        port.take(np.stack(values))
        for port, values in zip(ports, zip(*drawn, strict=True), strict=True)
    ]


def with_noise(policy: DeployablePolicy, observations: list[Array]) -> list[Array]:
    """Return observations as a policy's inputs, with noise where it wants some."""
    return [*observations, *draw_noise(policy.interface, len(observations[0]), seed=0)]


def _parts(space: Space, observation: Any) -> Iterator[tuple[Any, Any]]:
    for path, _ in leaves(space):
        leaf = observation
        for key in path:
            leaf = leaf[key]
        yield path, leaf


def _batched(space: Space, observation: Any) -> Any:
    """Return one observation as a batch of one, nested as it was."""
    if isinstance(space, gym.spaces.Dict):
        return {key: _batched(space.spaces[key], observation[key]) for key in space.spaces}
    if isinstance(space, gym.spaces.Tuple):
        return tuple(_batched(one, part) for one, part in zip(space, observation, strict=True))
    return np.asarray(observation)[None]
