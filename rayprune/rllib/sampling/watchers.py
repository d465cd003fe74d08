"""Which callbacks of a config watch an EnvRunner's episodes, and are no one's but the user's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.utils import force_list

from rayprune.rllib.settings.foreign_code import callback_classes

STEP: Final = "on_episode_step"
OF_EPISODES: Final = ("on_episode_created", "on_episode_start", "on_episode_end")
_OF_SAMPLES: Final = "on_sample_end"
_IDLE: Final = "ray.rllib.callbacks."
"""Where methods are that do nothing."""
_KNOWN: Final = (_IDLE, "rayprune.")
"""Where they are besides whose work an EnvRunner of ours does otherwise."""


def step_watchers(config: AlgorithmConfig) -> list[str]:
    """Name the callbacks of a config that see every step; a maker of callbacks may make such a one.

    Args:
        config: the algorithm's.
    """
    held = [*callback_classes(config), *_functions(config, STEP)]
    return [_name_of(one) for one in held if _watches(one, STEP)]


def watches_episodes(env_runner: Any) -> bool:
    """Whether an EnvRunner's callbacks look at episodes as they begin or end."""
    return any(_is_watched(env_runner, name) for name in OF_EPISODES)


def watches_steps(env_runner: Any) -> bool:
    """Whether an EnvRunner's callbacks look at every step."""
    return _is_watched(env_runner, STEP)


def watches_samples(env_runner: Any) -> bool:
    """Whether an EnvRunner's callbacks look at what `sample` returns."""
    # One of ours gives statistics along.
    return _is_watched(env_runner, _OF_SAMPLES, known=(_IDLE,))


def _is_watched(env_runner: Any, name: str, known: tuple[str, ...] = _KNOWN) -> bool:
    held = [*_callbacks_of(env_runner), *_functions(env_runner.config, name)]
    return any(_watches(one, name, known) for one in held)


def _callbacks_of(env_runner: Any) -> Iterator[Any]:
    for callback in env_runner._callbacks:
        # Those that were composed into one say which they are.
        yield from getattr(callback, "callbacks", (callback,))


def _functions(config: AlgorithmConfig, name: str) -> list[Any]:
    return list(force_list(getattr(config, f"callbacks_{name}")))


def _watches(callback: Any, name: str, known: tuple[str, ...] = _KNOWN) -> bool:
    method = getattr(callback, name, callback)
    return not getattr(method, "__module__", "").startswith(known)


def _name_of(callback: Any) -> str:
    return str(getattr(callback, "__qualname__", callback))
