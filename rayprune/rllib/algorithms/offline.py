"""Learning from recorded data: what RLlib must be told, and what a YAML must say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from rayprune.rllib.environments.environment import guarded_env
from rayprune.rllib.offline.data import RecordedData
from rayprune.rllib.offline.minari import SCHEME, minari_faults


def set_offline_defaults(config: AlgorithmConfig) -> None:
    """Set what RLlib would otherwise ask for of an algorithm that samples nothing, in place."""
    # RLlib would count the environment's spaces in only if it also evaluated by itself.
    env = guarded_env(config)
    config.environment(observation_space=env.observation_space, action_space=env.action_space)
    env.close()
    config.env_runners(num_env_runners=0)
    config.offline_data(
        offline_data_class=RecordedData,
        dataset_num_iters_per_learner=100,
        # Where RLlib streams: its own default starts two processes, and computes the same batches.
        map_batches_kwargs={"concurrency": 1},
    )


def offline_faults(algorithm: str, blocks: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the data that a YAML's ``rllib`` names."""
    block = blocks.get("offline_data")
    given = block.get("input_") if isinstance(block, Mapping) else None
    paths = [given] if isinstance(given, str) else given if isinstance(given, list) else []
    for path in paths:
        if str(path).startswith(SCHEME):
            yield from minari_faults(str(path))
        elif "://" not in str(path) and not Path(str(path)).exists():
            yield (
                f"`rllib.offline_data.input_` must be a folder of Parquet files, but there is no "
                f"{path!r}. `rayprune record CHECKPOINT --out {path}` writes some."
            )
    if not given:
        yield (
            f"`rllib.offline_data.input_` is missing: {algorithm} learns from recorded data. Give "
            "the folder of its Parquet files; `rayprune record CHECKPOINT --out FOLDER` writes "
            "some."
        )
