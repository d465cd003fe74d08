"""RLlib's episode replay buffers with their steps in arrays, sampled as columns."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from ray.rllib.utils.replay_buffers.episode_replay_buffer import EpisodeReplayBuffer
from ray.rllib.utils.replay_buffers.prioritized_episode_buffer import (
    PrioritizedEpisodeReplayBuffer,
)

from rayprune.rllib.connectors.sampling import (
    NormalisingEpisodeReplayBuffer,
    NormalisingPrioritizedEpisodeReplayBuffer,
)
from rayprune.rllib.replay.columnar import Columnar
from rayprune.rllib.replay.prioritised import ColumnarPrioritizedEpisodeReplayBuffer
from rayprune.rllib.replay.uniform import ColumnarEpisodeReplayBuffer

_BUFFERS: Final[dict[type, type[Columnar]]] = {
    EpisodeReplayBuffer: ColumnarEpisodeReplayBuffer,
    NormalisingEpisodeReplayBuffer: ColumnarEpisodeReplayBuffer,
    PrioritizedEpisodeReplayBuffer: ColumnarPrioritizedEpisodeReplayBuffer,
    NormalisingPrioritizedEpisodeReplayBuffer: ColumnarPrioritizedEpisodeReplayBuffer,
}


def reason_against(buffer: Any) -> str:
    """Return why a buffer can't be made columnar, in words; empty where it can."""
    if isinstance(buffer, Columnar):
        return ""
    if type(buffer) not in _BUFFERS:
        return f"{type(buffer).__name__} is no buffer of RLlib's for single agents"
    if isinstance(buffer, PrioritizedEpisodeReplayBuffer) and int(np.__version__[0]) < 2:
        return "NumPy is older than 2, and takes other precisions for priorities"
    return ""


def make_columnar(buffer: Any) -> None:
    """Let a buffer of RLlib's be sampled as columns, in place; one that is stays as it is.

    Args:
        buffer: with whatever it holds already.

    Raises:
        KeyError: it can't be, see `reason_against`.
    """
    if isinstance(buffer, Columnar):
        return
    columnar = _BUFFERS[type(buffer)]
    kept = {name: getattr(buffer, name) for name in columnar.ARRAYS_FOR}
    # By class, as normalising buffers are: one made here is RLlib's in all else that it holds.
    buffer.__class__ = columnar
    for name, value in kept.items():
        setattr(buffer, name, value)
    buffer.enter_arrays()
