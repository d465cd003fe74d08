"""Makes a checkpoint a barrier, so that stopping and resuming equals not stopping.

What can't be saved (episodes under way in an environment, four random generators in every process)
is dropped and reseeded at each checkpoint, whether the run is interrupted there or not. What RLlib
leaves out of its checkpoints (the replay buffer) is saved beside them.
"""

from __future__ import annotations

import pickle
import random
from pathlib import Path
from typing import Any, Final
from zlib import crc32

import numpy as np
import torch
from ray.rllib.algorithms.algorithm import Algorithm

from rayprune.rllib.actors.learners import foreach_learner
from rayprune.rllib.connectors.filter_state import consolidate, statistics_of
from rayprune.rllib.connectors.sampling import let_buffer_normalise
from rayprune.rllib.offline.data import RecordedData

BUFFER_FILE: Final = "replay_buffer.pkl"


def cross_barrier(algorithm: Algorithm, seed: int, env_steps: int) -> None:
    """Drop open episodes and reseed every generator from ``(seed, env_steps)``.

    Args:
        algorithm: a built or restored algorithm, between two iterations.
        seed: the run's seed.
        env_steps: lifetime env steps sampled at the checkpoint.
    """
    foreach_learner(algorithm, lambda learner: _cross(learner, seed, env_steps))
    consolidate(algorithm)
    if algorithm.env_runner_group is not None:
        algorithm.env_runner_group.foreach_env_runner(
            lambda runner: _restart_episodes(runner, seed, env_steps)
        )
    buffer: Any = getattr(algorithm, _buffer_name(algorithm))
    if hasattr(buffer, "rng"):
        # EpisodeReplayBuffer makes its generator without a seed.
        buffer.rng = np.random.default_rng(barrier_seed(seed, env_steps, "buffer"))
    if isinstance(algorithm.offline_data, RecordedData):
        algorithm.offline_data.cross_barrier()
    # Last, for with a local EnvRunner and Learner all of them share this process.
    reseed(barrier_seed(seed, env_steps, "driver"))


def barrier_seed(seed: int, env_steps: int, who: str) -> int:
    """Return a 32-bit seed that differs for each run, checkpoint and process.

    >>> barrier_seed(0, 1000, "driver") == barrier_seed(0, 1000, "driver")
    True
    >>> len({barrier_seed(s, t, w) for s in (0, 1) for t in (0, 1) for w in ("a", "b")})
    8
    """
    return crc32(f"{seed}/{env_steps}/{who}".encode())


def reseed(seed: int) -> None:
    """Seed Python's, NumPy's and torch's global generators (torch's on every device)."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - RLlib draws from the global generator
    torch.manual_seed(seed)


def save_buffer(algorithm: Algorithm, directory: Path) -> None:
    """Write the replay buffer, if the algorithm has one, to ``directory``."""
    buffer = getattr(algorithm, _buffer_name(algorithm), None)
    assert algorithm.config is not None
    # CQL makes one, as DQN does, never fills it, and it can't be pickled.
    if buffer is not None and not algorithm.config.is_offline:
        # Pickled whole: its own get_state and set_state raise on each other's output.
        with (directory / BUFFER_FILE).open("wb") as file:
            pickle.dump(buffer, file, protocol=pickle.HIGHEST_PROTOCOL)


def load_buffer(algorithm: Algorithm, directory: Path) -> None:
    """Put the replay buffer of ``directory`` back, if one was saved there."""
    path = directory / BUFFER_FILE
    if path.exists():
        with path.open("rb") as file:
            setattr(algorithm, _buffer_name(algorithm), pickle.load(file))
        if statistics_of(algorithm):
            let_buffer_normalise(algorithm)


def _buffer_name(algorithm: Algorithm) -> str:
    """Return the attribute that holds the buffer which is filled."""
    # DreamerV3 makes one of its own beside RLlib's, which stays empty.
    return "replay_buffer" if hasattr(algorithm, "replay_buffer") else "local_replay_buffer"


def _cross(learner: Any, seed: int, env_steps: int) -> None:
    reseed(barrier_seed(seed, env_steps, "learner"))
    learner.cross_barrier()


def _restart_episodes(env_runner: Any, seed: int, env_steps: int) -> None:
    own = barrier_seed(seed, env_steps, f"env_runner/{env_runner.worker_index}")
    # The next sample() resets the environments, with this seed.
    env_runner._seed = own % 2**31
    env_runner._needs_initial_reset = True
    reseed(own)
