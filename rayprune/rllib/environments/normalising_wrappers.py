"""Environment wrappers that normalise by statistics of their own: found, and refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from rayprune.errors import ConfigError
from rayprune.rllib.environments.environment import make_env
from rayprune.rllib.environments.guard import env_name
from rayprune.rllib.environments.vector_environment import is_vector, make_vector

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
            names = [type(wrapper).__name__ for wrapper in running_wrappers(env)]
            faults += [_fault(config.env, name, _in_a_yaml(name)) for name in names]
        finally:
            env.close()
    return faults


def check_environments(algorithm: Any) -> None:
    """Look through the environments that an algorithm's EnvRunners hold, remote ones included.

    Args:
        algorithm: built.

    Raises:
        ConfigError: a wrapper keeps running statistics in its environment.
    """
    group = algorithm.env_runner_group
    found = [] if group is None else group.foreach_env_runner(_found_in)
    faults = dict.fromkeys(
        _fault(env_name(algorithm.config), name, _instead(name, several=is_multi_agent))
        for names, is_multi_agent in found
        for name in names
    )
    if faults:
        raise ConfigError(list(faults))


def _found_in(env_runner: Any) -> tuple[list[str], bool]:
    held = getattr(env_runner, "env", None)
    wrappers = [] if held is None else running_wrappers(held)
    return [type(wrapper).__name__ for wrapper in wrappers], bool(env_runner.config.is_multi_agent)


def running_wrappers(env: Any) -> Iterator[Any]:
    """Yield the layers of an environment that learn statistics as it runs, outermost first.

    Those whose ``update_running_mean`` is off are constant, and do no harm.
    """
    layer, passed = env, set[int]()
    while layer is not None and id(layer) not in passed:
        passed.add(id(layer))
        held = getattr(layer, "__dict__", {})
        names = [type(value).__name__ for value in held.values()]
        if _STATISTICS in names and getattr(layer, "update_running_mean", True):
            yield layer
        several = held.get("envs")
        first = several[0] if isinstance(several, (list, tuple)) and several else None
        layer = held.get("env", first)


def _environments(config: AlgorithmConfig) -> Iterator[Any]:
    yield make_env(config)
    if is_vector(config):
        yield make_vector(config)


def _fault(env: Any, name: str, instead: str) -> str:
    return (
        f"`env` {env!r} has {name} around it, whose statistics each environment gathers for "
        "itself: an evaluation would begin without any, a resumed run would differ from one that "
        f"wasn't stopped, and an export would lack them. Leave it out, and {instead}."
    )


def _is_of_rewards(name: str) -> bool:
    return "eward" in name


def _in_a_yaml(name: str) -> str:
    if _is_of_rewards(name):
        return "set `normalise: {rewards: true}`"
    return "set `rllib.env_runners.observation_filter: MeanStdFilter`"


def _instead(name: str, *, several: bool) -> str:
    if several:
        return "give a connector as `env_to_module_connector`"
    if _is_of_rewards(name):
        way = "rayprune.rllib.normalise(config, observations=False, rewards=True)"
        return f"call `{way}` first"
    return "call `config.env_runners(observation_filter='MeanStdFilter')` first"
