"""Small recordings, as ``rayprune record`` writes them, and configs that learn from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pyarrow
from pyarrow import parquet
from ray.rllib.env import INPUT_ENV_SPACES

from rayprune.rllib.experiment.algorithm_config import build_config
from rayprune.rllib.offline.data import RecordedData
from tests.rllib import experiments

DISCRETE = ("BC", "MARWIL")


def env_of(algorithm: str) -> str:
    """Return the environment that an algorithm's tests are recorded in."""
    return "CartPole-v1" if algorithm in DISCRETE else "Pendulum-v1"


def steps(env: str, episodes: int = 2, most: int = 30) -> list[dict[str, Any]]:
    """Return the rows of random episodes, cut off after some steps."""
    made, rows = gym.make(env, max_episode_steps=most), list[dict[str, Any]]()
    made.action_space.seed(0)
    for number in range(episodes):
        (seen, _), ended, step = made.reset(seed=number), False, 0
        while not ended:
            action = made.action_space.sample()
            following, reward, terminated, truncated, _ = made.step(action)
            rows.append(
                {
                    "eps_id": str(number),
                    "t": step,
                    "obs": seen.tolist(),
                    "actions": np.asarray(action).tolist(),
                    "rewards": float(reward),
                    "new_obs": following.tolist(),
                    "terminateds": bool(terminated),
                    "truncateds": bool(truncated),
                }
            )
            seen, ended, step = following, terminated or truncated, step + 1
    return rows


def write(rows: list[dict[str, Any]], folder: Path) -> Path:
    """Write rows to a folder's one file; return the folder."""
    folder.mkdir(exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(rows), str(folder / "episodes.parquet"))
    return folder


def raw(algorithm: str, folder: Path, **training: Any) -> dict[str, Any]:
    """Return the YAML of an experiment that learns from a folder."""
    return {
        **experiments.PPO,
        "algorithm": algorithm,
        "env": env_of(algorithm),
        "rllib": {
            "training": {"train_batch_size_per_learner": 16, **training},
            "offline_data": {"input_": [str(folder)], "dataset_num_iters_per_learner": 5},
            "rl_module": {
                "model_config": {
                    "fcnet_hiddens": [8, 8],
                    **({} if algorithm in DISCRETE else {"fusionnet_hiddens": [8]}),
                }
            },
        },
        "pruning": {"sparsity": 0.8, "schedule": {"begin": 0.1, "end": 0.5, "every": 5}},
        "stop": {"updates": 30},
        "evaluation": {"every": 30, "episodes": 2},
    }


def config_of(algorithm: str, folder: Path, **training: Any) -> Any:
    """Return the pruning config of such an experiment."""
    return build_config(experiments.experiment(raw(algorithm, folder, **training)))


def data_of(config: Any) -> RecordedData:
    """Return a config's data as an Algorithm would set it up."""
    env = gym.make(config.env)
    data = RecordedData(config)
    data.spaces = {INPUT_ENV_SPACES: (env.observation_space, env.action_space)}
    data.module_spec = config.get_multi_rl_module_spec(env=env)
    return data


def learner_of(config: Any) -> Any:
    """Return a config's Learner, built."""
    learner = config.build_learner(env=gym.make(config.env))
    learner.build()
    return learner


def updates(learner: Any, iterators: Any, count: int, size: int = 16, each: int = 5) -> Any:
    """Do some updates as MARWIL's training step does; return the last one's results."""
    for number in range(count):
        results = learner.update(
            data_iterators=iterators,
            minibatch_size=size,
            num_iters=each,
            timesteps={"num_env_steps_sampled_lifetime": size * (number + 1)},
        )
    return results
