"""Every algorithm by every kind of net by every granularity, and why some are left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.appo import APPOConfig
from ray.rllib.algorithms.bc import BCConfig
from ray.rllib.algorithms.cql import CQLConfig
from ray.rllib.algorithms.impala import IMPALAConfig
from ray.rllib.algorithms.iql import IQLConfig
from ray.rllib.algorithms.marwil import MARWILConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from rayprune.rllib import models
from rayprune.rllib.normalisation import as_configured
from rayprune.rllib.offline.data import RecordedData
from tests.doubles.envs import Images
from tests.rllib import configs

ALGORITHMS = (
    *("PPO", "APPO", "IMPALA", "DQN", "DQN_C51", "SAC", "SAC_discrete", "TQC"),
    *("BC", "MARWIL", "CQL", "IQL"),
)
NETS: Mapping[str, dict[str, Any]] = {
    "mlp": {"fcnet_hiddens": [32, 32]},
    "cnn": {
        "conv_filters": [[8, 4, 2], [16, 4, 2]],
        "head_fcnet_hiddens": [16],
        "fcnet_hiddens": [],
    },
    "lstm": {"fcnet_hiddens": [16], "use_lstm": True, "lstm_cell_size": 16, "max_seq_len": 8},
    "simba": {},
}
_STREAMS = {"policy_width": 16, "policy_blocks": [32], "value_width": 16, "value_blocks": [32]}
SIMBA: Mapping[str, tuple[type, dict[str, Any]]] = {
    "SAC": (models.PrunableSimBaSAC, _STREAMS),
    "TQC": (models.PrunableSimBaTQC, _STREAMS),
    "CQL": (models.PrunableSimBaCQL, _STREAMS),
    "IQL": (models.PrunableSimBaIQL, _STREAMS),
    "DQN": (models.PrunableSimBaDQN, {"width": 16, "blocks": [32]}),
}
"""Of algorithms with Q-networks; all others take the actor-critic."""
GRANULARITIES = ("weight", "neuron", "2:4")
ASYNCHRONOUS = ("APPO", "IMPALA")
OFFLINE = {
    "BC": "discrete",
    "MARWIL": "discrete",
    "CQL": "continuous",
    "IQL": "continuous",
}

_OFFLINE_CONFIGS = {"BC": BCConfig, "MARWIL": MARWILConfig, "CQL": CQLConfig, "IQL": IQLConfig}

_NO_IMAGES = "RLlib's continuous SAC concatenates actions to observations: vectors only"
LEFT_OUT: Mapping[tuple[str, str], str] = {
    ("SAC", "cnn"): _NO_IMAGES,
    ("TQC", "cnn"): _NO_IMAGES,
    ("CQL", "cnn"): _NO_IMAGES,
    ("IQL", "cnn"): _NO_IMAGES,
    ("SAC", "lstm"): "RLlib's SAC fails with recurrent nets",
    ("SAC_discrete", "lstm"): "RLlib's SAC fails with recurrent nets",
    ("TQC", "lstm"): "RLlib's TQC, like its SAC, fails with recurrent nets",
    ("CQL", "lstm"): "RLlib's CQL, like its SAC, fails with recurrent nets",
    ("IQL", "lstm"): "RLlib's IQL, like its SAC, fails with recurrent nets",
    ("DQN_C51", "lstm"): "RLlib's distributional DQN takes sequences for batches",
    ("BC", "lstm"): "RLlib reads offline data without recurrent states",
    ("MARWIL", "lstm"): "RLlib reads offline data without recurrent states",
}
Case = tuple[str, str, str]

FULL: tuple[Case, ...] = tuple(
    (algorithm, net, granularity)
    for algorithm, net, granularity in product(ALGORITHMS, NETS, GRANULARITIES)
    if (algorithm, net) not in LEFT_OUT
)


def cover(cases: tuple[Case, ...], but: Iterable[Case] = ()) -> list[Case]:
    """Return a few of the cases in which each pair of values that occurs in any occurs again.

    Greedy: always the case with most pairs that are still missing; the first among equals.

    Args:
        cases: to choose from.
        but: cases whose pairs need not occur again.
    """
    missing = {pair for case in cases for pair in pairs(case)}
    missing -= {pair for case in but for pair in pairs(case)}
    chosen: list[Case] = []
    while missing:
        best = max(cases, key=lambda case: len(pairs(case) & missing))
        chosen.append(best)
        missing -= pairs(best)
    return chosen


def pairs(case: Case) -> set[tuple[int, str, int, str]]:
    """Return a case's pairs of values, each value with its place."""
    return {(i, case[i], j, case[j]) for i in range(3) for j in range(i + 1, 3)}


def config_of(algorithm: str, net: str, data: Mapping[str, Path]) -> AlgorithmConfig:
    """Return a config of a few steps an iteration, all in this process.

    Args:
        algorithm: one of `ALGORITHMS`.
        net: one of `NETS`.
        data: folder of recorded episodes by ``"discrete"``, ``"continuous"`` and ``"images"``.
    """
    config = _config_of(algorithm, net, data)
    env = Images if net == "cnn" else config.env
    config = config.environment(env).rl_module(model_config=NETS[net])
    return with_simba(config, algorithm) if net == "simba" else config


def with_simba(config: AlgorithmConfig, algorithm: str) -> AlgorithmConfig:
    """Return a config whose network is SimBa's; what samples normalises."""
    kind, settings = SIMBA.get(algorithm.split("_")[0], (models.PrunableSimBa, _STREAMS))
    settings = {**settings, "normalise_observations": not config.is_offline}
    spec = RLModuleSpec(module_class=kind, model_config=settings)
    return as_configured(config.rl_module(rl_module_spec=spec))


def _config_of(algorithm: str, net: str, data: Mapping[str, Path]) -> AlgorithmConfig:
    if algorithm in ASYNCHRONOUS:
        return _asynchronous(algorithm)
    if algorithm in OFFLINE:
        kind = "images" if net == "cnn" else OFFLINE[algorithm]
        return _offline(algorithm, data[kind], Images if net == "cnn" else None)
    if algorithm == "SAC_discrete":
        return configs.sac().environment("CartPole-v1")
    if algorithm.startswith("DQN"):
        kinds = {"num_atoms": 5, "v_min": 0.0, "v_max": 50.0} if algorithm == "DQN_C51" else {}
        buffer = {"type": "EpisodeReplayBuffer", "capacity": 1000} if net == "lstm" else None
        config = configs.dqn(
            **kinds, **({} if buffer is None else {"replay_buffer_config": buffer})
        )
        return config.reporting(min_sample_timesteps_per_iteration=60)
    return {"PPO": configs.ppo, "SAC": configs.sac, "TQC": configs.tqc}[algorithm]()


def _asynchronous(algorithm: str) -> AlgorithmConfig:
    config = APPOConfig() if algorithm == "APPO" else IMPALAConfig()
    config.environment("CartPole-v1").learners(num_learners=0)
    config.env_runners(num_env_runners=0, num_envs_per_env_runner=2)
    config.training(train_batch_size_per_learner=100)
    config.reporting(min_time_s_per_iteration=0, min_sample_timesteps_per_iteration=300)
    return config.debugging(seed=0, log_level="ERROR")


def _offline(algorithm: str, folder: Path, env: Any) -> AlgorithmConfig:
    import gymnasium as gym

    config: Any = _OFFLINE_CONFIGS[algorithm]()
    if algorithm == "CQL":
        config.training(lr=None)
    name = "CartPole-v1" if OFFLINE[algorithm] == "discrete" else "Pendulum-v1"
    spaces = env() if env is not None else gym.make(name)
    config.environment(
        name,
        observation_space=spaces.observation_space,
        action_space=spaces.action_space,
    )
    config.env_runners(num_env_runners=0).training(train_batch_size_per_learner=32)
    config.offline_data(
        offline_data_class=RecordedData,
        input_=[str(folder)],
        input_read_episodes=True,
        dataset_num_iters_per_learner=3,
        map_batches_kwargs={"concurrency": 1, "num_cpus": 0},
    )
    config.reporting(min_time_s_per_iteration=0, min_train_timesteps_per_iteration=0)
    return config.debugging(seed=0, log_level="ERROR")


def record(env: Any, folder: Path) -> Path:
    """Let RLlib itself record some random episodes; return the folder."""
    config = (
        configs.ppo(env, **(NETS["cnn"] if env is Images else {}))
        .env_runners(batch_mode="complete_episodes")
        .offline_data(
            output=str(folder),
            output_write_episodes=True,
            output_max_rows_per_file=5,
            output_write_remaining_data=True,
        )
    )
    algorithm = config.build_algo()
    algorithm.train()
    algorithm.stop()
    return folder
