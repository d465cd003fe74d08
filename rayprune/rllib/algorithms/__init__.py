"""What RLlib's algorithms need beside their settings: spaces, defaults, and what each lacks."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import gymnasium as gym
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from rayprune.algorithms import is_offline
from rayprune.config import ExperimentConfig
from rayprune.rllib.environments.action_spaces import action_space_faults
from rayprune.rllib.environments.environment import guarded_env
from rayprune.rllib.models.modules import ActorCritic

ASYNCHRONOUS: Final = frozenset({"APPO", "IMPALA"})
"""Their Learners update in a thread of their own, while EnvRunners sample."""

_ACTIONS: Final[Mapping[str, tuple[type, ...]]] = {
    "DQN": (gym.spaces.Discrete,),
    "SAC": (gym.spaces.Box, gym.spaces.Discrete),
    "CQL": (gym.spaces.Box,),
}
_NO_LSTM: Final[Mapping[str, str]] = {
    "SAC": "RLlib's SAC fails with recurrent nets",
    "CQL": "RLlib's CQL, like its SAC, fails with recurrent nets",
    "DQN": "RLlib's prioritised buffer holds no sequences",
    "BC": "RLlib reads offline data without recurrent states",
}


def algorithm_config(name: str) -> AlgorithmConfig:
    """Return a fresh config of the algorithm called ``name`` in the YAML."""
    module = importlib.import_module(f"ray.rllib.algorithms.{name.lower()}")
    config: AlgorithmConfig = getattr(module, f"{name}Config")()
    return config


def set_defaults(config: AlgorithmConfig, experiment: ExperimentConfig) -> None:
    """Set what RLlib would otherwise ask for or get wrong; the experiment's own blocks follow.

    Args:
        config: fresh, with its environment; changed in place.
        experiment: its algorithm decides.
    """
    # SAC's iterations end by the clock on the wall: two runs of one seed would differ.
    config.reporting(min_time_s_per_iteration=0)
    # RLlib's minute is as long as it waits for samples: one fault would cost an iteration, or more.
    config.fault_tolerance(delay_between_env_runner_restarts_s=1.0)
    if experiment.algorithm in ASYNCHRONOUS:
        # Without a clock an iteration is whatever happens to have arrived, often nothing.
        config.reporting(min_sample_timesteps_per_iteration=1000)
    if experiment.offline:
        # RLlib would count the environment's spaces in only if it also evaluated by itself.
        env = guarded_env(config)
        config.environment(observation_space=env.observation_space, action_space=env.action_space)
        env.close()
        config.env_runners(num_env_runners=0)
        # Its own default starts two processes, and computes the same batches.
        config.offline_data(
            dataset_num_iters_per_learner=100, map_batches_kwargs={"concurrency": 1}
        )
        # CQL's learning rates are the actor's, the critic's and alpha's; RLlib's default clashes.
        config.training(lr=None if experiment.algorithm == "CQL" else config.lr)


def algorithm_faults(raw: Mapping[str, Any]) -> Iterator[str]:
    """Yield what an algorithm can't do, of what shows before anything is built."""
    name, blocks = raw.get("algorithm"), raw.get("rllib")
    blocks = blocks if isinstance(blocks, Mapping) else {}
    if is_offline(name):
        yield from _offline_faults(str(name), blocks)
    if _value(blocks, "rl_module", "model_config", "use_lstm") is True and name in _NO_LSTM:
        kind = _value(blocks, "training", "replay_buffer_config", "type")
        if name != "DQN" or kind != "EpisodeReplayBuffer":
            yield _lstm_fault(str(name))
        if name == "DQN" and (_value(blocks, "training", "num_atoms") or 1) > 1:
            yield (
                "`rllib.training.num_atoms` must be 1 with `use_lstm`: RLlib's distributional DQN "
                "fails with recurrent nets. Leave one of the two out."
            )
    if name == "CQL" and _value(blocks, "training", "target_network_update_freq"):
        # RLlib 2.60 counts env steps here, and an offline algorithm samples none.
        yield (
            "`rllib.training.target_network_update_freq` must be 0 with CQL, or its target "
            "networks would never be updated. Leave it out, and set `tau`."
        )


def action_faults(config: AlgorithmConfig, experiment: ExperimentConfig) -> list[str]:
    """Return the faults of an action space that the algorithm can't take.

    Raises:
        EnvError: the environment can't be made.
    """
    env, name = guarded_env(config), experiment.algorithm
    space = env.action_space
    env.close()
    allowed = _ACTIONS.get(name)
    if allowed is None or isinstance(space, allowed):
        # A module of the user's own may have a distribution of its own.
        return [] if has_own_module(config) else [*action_space_faults(space, name)]
    names = " or ".join(kind.__name__ for kind in allowed)
    return [
        f"`{name}` can't be built for `env` {experiment.env!r}: it needs actions "
        f"in a {names} space, but they are {space}. Choose another `algorithm` or `env`."
    ]


def has_own_module(config: AlgorithmConfig) -> bool:
    """Whether a config names an RLModule class that is neither RLlib's nor ours."""
    given = getattr(config._rl_module_spec, "module_class", None)
    if given is None:
        return False
    default: Any = config.get_default_rl_module_spec()
    return not issubclass(given, (ActorCritic, default.module_class))


def _offline_faults(name: str, blocks: Mapping[str, Any]) -> Iterator[str]:
    given = _value(blocks, "offline_data", "input_")
    paths = [given] if isinstance(given, str) else given if isinstance(given, list) else []
    for path in paths:
        if "://" not in str(path) and not Path(str(path)).exists():
            yield (
                f"`rllib.offline_data.input_` must be a folder of Parquet files, but there is no "
                f"{path!r}. `rayprune record CHECKPOINT --out {path}` writes some."
            )
    if not given:
        yield (
            f"`rllib.offline_data.input_` is missing: {name} learns from recorded data. Give the "
            "folder of its Parquet files; `rayprune record CHECKPOINT --out FOLDER` writes some."
        )


def _lstm_fault(name: str) -> str:
    way_out = "Leave it out, or choose PPO, APPO or IMPALA."
    if name == "DQN":
        way_out = (
            "Set `rllib.training.replay_buffer_config: {type: EpisodeReplayBuffer}`, which is "
            "uniform, or leave it out."
        )
    return f"`rllib.rl_module.model_config.use_lstm` can't be true: {_NO_LSTM[name]}. {way_out}"


def _value(nested: Any, *path: str) -> Any:
    for key in path:
        nested = nested.get(key) if isinstance(nested, Mapping) else None
    return nested
