"""What an EnvRunner does with its samples before a Learner or a replay buffer gets them."""

from __future__ import annotations

import copy
from typing import Any, Final

import numpy as np
from ray.rllib.core.columns import Columns
from ray.rllib.env.utils.infinite_lookback_buffer import InfiniteLookbackBuffer
from ray.rllib.utils.replay_buffers.episode_replay_buffer import EpisodeReplayBuffer
from ray.rllib.utils.replay_buffers.prioritized_episode_buffer import (
    PrioritizedEpisodeReplayBuffer,
)

from rayprune.errors import ConfigError
from rayprune.rllib.connectors.filters import ObservationFilter, RewardFilter, Scaling
from rayprune.rllib.connectors.pipelines import pieces_of

STATISTICS: Final = "rayprune_statistics"
"""Where samples carry an EnvRunner's statistics to a replay buffer."""


def hand_over(env_runner: Any, samples: list[Any]) -> None:
    """Scale the rewards of samples, or send the statistics of now along where they are replayed.

    An EnvRunner counts its returns from the episodes that it made itself, so they stay raw.

    Args:
        env_runner: it made the samples.
        samples: episodes or chunks of them; replaced in place.
    """
    if not samples:
        return
    config, pieces = env_runner.config, pieces_of(env_runner._env_to_module)
    rewards = next((piece for piece in pieces if isinstance(piece, RewardFilter)), None)
    if rewards is not None:
        rewards.watch(samples, config.gamma)
    if replays(config):
        samples[-1].custom_data[STATISTICS] = (
            next((piece.scaling for piece in pieces if isinstance(piece, ObservationFilter)), None),
            1.0 if rewards is None else rewards.std,
        )
    elif rewards is not None:
        samples[:] = [scaled(episode, rewards.std) for episode in samples]


def replays(config: Any) -> bool:
    """Whether an algorithm learns from a buffer of what it sampled earlier."""
    return bool(getattr(config, "replay_buffer_config", None)) and not config.is_offline


def scaled(episode: Any, std: float) -> Any:
    """Return a copy of an episode whose rewards are divided by ``std``; the rest is shared."""
    result, held = copy.copy(episode), episode.rewards
    data = np.asarray(held.data, np.float32) / np.float32(std)
    result.rewards = InfiniteLookbackBuffer(
        data if held.finalized else list(data), held.lookback, held.space
    )
    return result


class NormalisingBuffer:
    """A replay buffer of raw episodes that gives normalised ones, by the newest statistics.

    So that a transition means the same whenever it was sampled. SB3's VecNormalize does the same;
    RLlib's filter would leave each as the statistics of its time made it.
    """

    _statistics: tuple[Scaling | None, float] | None = None

    def add(self, episodes: Any, *args: Any, **kwargs: Any) -> None:
        """Add episodes, and take over the statistics that came with them."""
        self.take_statistics(episodes if isinstance(episodes, list) else [episodes])
        super().add(episodes, *args, **kwargs)  # type: ignore[misc]  # the buffer's

    def take_statistics(self, episodes: list[Any]) -> None:
        """Take over the statistics that came with episodes."""
        for episode in episodes:
            self._statistics = episode.custom_data.pop(STATISTICS, self._statistics)

    def sample(self, *args: Any, **kwargs: Any) -> Any:
        """Return normalised episodes."""
        episodes = super().sample(*args, **kwargs)  # type: ignore[misc]  # the buffer's
        if self._statistics is not None:
            scaling, std = self._statistics
            if scaling is not None:
                _normalise(episodes, scaling)
            for episode in episodes if std != 1.0 else ():
                held = np.asarray(episode.rewards.data, np.float32) / np.float32(std)
                episode.rewards.data = held if episode.rewards.finalized else list(held)
        return episodes

    def normalised(self, columns: dict[str, Any]) -> dict[str, Any]:
        """Return a train batch's columns normalised, as if its episodes had been."""
        if self._statistics is None:
            return columns
        scaling, std = self._statistics
        if scaling is not None:
            seen = {name: scaling(columns[name]) for name in (Columns.OBS, Columns.NEXT_OBS)}
            columns = {**columns, **seen}
        if std != 1.0:
            rewards = np.asarray(columns[Columns.REWARDS], np.float32) / np.float32(std)
            columns = {**columns, Columns.REWARDS: rewards}
        return columns


class NormalisingEpisodeReplayBuffer(NormalisingBuffer, EpisodeReplayBuffer):  # type: ignore[misc]
    """RLlib's uniform buffer, normalising."""


class NormalisingPrioritizedEpisodeReplayBuffer(  # type: ignore[misc]
    NormalisingBuffer, PrioritizedEpisodeReplayBuffer
):
    """RLlib's prioritised buffer, normalising."""


_BUFFERS: Final[dict[type, type]] = {
    EpisodeReplayBuffer: NormalisingEpisodeReplayBuffer,
    PrioritizedEpisodeReplayBuffer: NormalisingPrioritizedEpisodeReplayBuffer,
}


def let_buffer_normalise(algorithm: Any) -> None:
    """Make an algorithm's replay buffer one that normalises, if it has one.

    Raises:
        ConfigError: the buffer is of a class of its own.
    """
    buffer = getattr(algorithm, "local_replay_buffer", None)
    if buffer is None or isinstance(buffer, NormalisingBuffer) or not replays(algorithm.config):
        return
    if type(buffer) not in _BUFFERS:
        raise ConfigError(
            f"`replay_buffer_config.type` {type(buffer).__name__} can't give normalised samples. "
            f"Use one of {sorted(cls.__name__ for cls in _BUFFERS)}, or normalise neither "
            "observations nor rewards."
        )
    # By class: a buffer made here is one of RLlib's in all that it holds.
    buffer.__class__ = _BUFFERS[type(buffer)]


def _normalise(episodes: list[Any], scaling: Scaling) -> None:
    """Normalise all observations of sampled episodes, all in one go; the buffer's are left."""
    sizes = [len(episode.observations.data) for episode in episodes]
    rows = [np.asarray(row) for episode in episodes for row in episode.observations.data]
    done, begin = scaling(np.stack(rows)), 0
    for episode, size in zip(episodes, sizes, strict=True):
        part, held = done[begin : begin + size], episode.observations
        held.data = part if held.finalized else list(part)
        begin += size
