"""RLlib's buffers beside ours: the same seeds and episodes, and all that comes out, bit by bit."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import tree
from ray.rllib.utils.replay_buffers.episode_replay_buffer import EpisodeReplayBuffer
from ray.rllib.utils.replay_buffers.prioritized_episode_buffer import (
    PrioritizedEpisodeReplayBuffer,
)

from rayprune.rllib.replay.buffers import make_columnar
from rayprune.rllib.replay.n_step_columns import columns_of

CLASSES: dict[str, type[Any]] = {
    "uniform": EpisodeReplayBuffer,
    "prioritised": PrioritizedEpisodeReplayBuffer,
}


class Pair:
    """A buffer of RLlib's and one of ours that get the same.

    Args:
        kind: see `CLASSES`.
        capacity: of both.
        seed: of both.
    """

    def __init__(self, kind: str, capacity: int = 1000, seed: int = 0, **settings: Any) -> None:
        self.theirs = CLASSES[kind](capacity, **settings)
        self.ours = CLASSES[kind](capacity, **settings)
        make_columnar(self.ours)
        self.seed(seed)
        self._random = np.random.default_rng(seed + 1)

    def seed(self, seed: int) -> None:
        """Seed both."""
        self.theirs.rng, self.ours.rng = np.random.default_rng(seed), np.random.default_rng(seed)

    def add(self, episodes: list[Any], **settings: Any) -> None:
        """Add the same to both."""
        copied = copy.deepcopy(episodes)
        self.theirs.add(episodes, **settings)
        self.ours.add(copied, **settings)
        assert len(self.ours) == len(self.theirs)
        assert self.ours.get_num_episodes() == self.theirs.get_num_episodes()

    def sample(self, items: int = 16, n_step: Any = 1, beta: float = 0.4) -> dict[str, Any]:
        """Sample from both, and return the columns, which are equal."""
        how = {"num_items": items, "n_step": n_step, "gamma": 0.97, "beta": beta}
        theirs = columns_of(self.theirs.sample(**how, sample_episodes=True))
        ours = self.ours.sample_columns(**how)
        assert_same_columns(ours, theirs)
        assert self.ours.rng.bit_generator.state == self.theirs.rng.bit_generator.state
        for name in ("sampled_timesteps", "_num_timesteps", "_num_timesteps_added"):
            assert getattr(self.ours, name) == getattr(self.theirs, name)
        return ours

    def update(self, priorities: Any = None) -> None:
        """Set both's priorities, from random TD errors if none are given."""
        if priorities is None:
            count = len(self.ours._last_sampled_indices)
            priorities = np.abs(self._random.normal(size=count)).astype(np.float32)
            # A TD error of exactly 0 is raised to a Python float.
            priorities[self._random.random(count) < 0.1] = 0.0
        self.theirs.update_priorities(priorities)
        self.ours.update_priorities(priorities)

    @property
    def in_arrays(self) -> bool:
        """Whether ours has its steps in arrays yet."""
        return self.ours._steps is not None


def assert_same_columns(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Check names, their order, dtypes, shapes, and all bits."""
    assert list(ours) == list(theirs)
    for name, column in theirs.items():
        assert (ours[name].dtype, ours[name].shape) == (column.dtype, column.shape), name
        assert ours[name].tobytes() == column.tobytes(), name


def assert_same_metrics(ours: Any, theirs: Any) -> None:
    """Check keys, their order, and what each statistic holds."""
    flat_ours, flat_theirs = tree.flatten_with_path(ours), tree.flatten_with_path(theirs)
    assert [path for path, _ in flat_ours] == [path for path, _ in flat_theirs]
    for (path, own), (_, stats) in zip(flat_ours, flat_theirs, strict=True):
        np.testing.assert_equal(own.get_state(), stats.get_state(), err_msg=str(path))


def assert_same_state(ours: Any, theirs: Any) -> None:
    """Check that two buffers' states are equal, with types and dtypes."""
    _assert_same(ours.get_state(), theirs.get_state(), "state")


def _assert_same(ours: Any, theirs: Any, path: str) -> None:
    if isinstance(theirs, dict):
        assert list(ours) == list(theirs), path
        for key, value in theirs.items():
            _assert_same(ours[key], value, f"{path}.{key}")
    elif isinstance(theirs, list | tuple):
        assert len(ours) == len(theirs), path
        for place, (own, value) in enumerate(zip(ours, theirs, strict=True)):
            _assert_same(own, value, f"{path}[{place}]")
    elif isinstance(theirs, np.ndarray):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape), path
        np.testing.assert_array_equal(ours, theirs, err_msg=path)
    else:
        assert type(ours) is type(theirs), path
        assert ours == theirs, path
