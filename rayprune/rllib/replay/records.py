"""Episodes taken apart: steps that go into arrays, and what is left of an episode without them."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.env.utils.infinite_lookback_buffer import InfiniteLookbackBuffer

from rayprune.rllib.replay.pieces import Piece
from rayprune.rllib.replay.transitions import Array, Chunk, Rows, Transitions

_NUMBERS: Final = "biuf"
"""Kinds of dtypes that are kept in arrays."""
_LARGEST: Final = 8
"""Bytes of a number; RLlib would sum longer rewards in their own precision."""


def reason_against(episode: Any) -> str:
    """Return why an episode's steps can't go into arrays, in words; empty where they can."""
    if type(episode) is not SingleAgentEpisode:
        return f"{type(episode).__name__} is no single agent's episode"
    if not len(episode):
        return "an episode has no steps"
    # RLlib's Learner groups a batch by the ids that have an underscore.
    if "_" in episode.id_ or (episode.agent_id, episode.module_id) != (None, None):
        return "episodes have ids of their own"
    buffers = _buffers(episode)
    if not all(_is_plain(buffer.data) for buffer in buffers.values()):
        return "what episodes hold is no plain array"
    if buffers["rewards"].data.ndim != 1:
        return "rewards are no single numbers"
    steps = [len(_own(buffer)) - (name == "observations") for name, buffer in buffers.items()]
    return "" if set(steps) == {len(episode)} else "an episode's parts differ in length"


def chunk_of(episode: Any) -> Chunk:
    """Return the steps of an episode or a `Piece`."""
    if type(episode) is Piece:
        return Chunk(
            observations=episode.observations,
            actions=episode.actions,
            rewards=episode.rewards,
            extras=episode.outputs,
            terminated=False,
            truncated=False,
        )
    return Chunk(
        observations=_own(episode.observations),
        actions=_own(episode.actions),
        rewards=_own(episode.rewards),
        extras={name: _own(held) for name, held in episode.extra_model_outputs.items()},
        terminated=bool(episode.is_terminated),
        truncated=bool(episode.is_truncated),
    )


@dataclass(slots=True)
class Record:
    """An episode whose steps lie in arrays."""

    shell: Any
    """The episode, holding nothing of its steps but what it looks back on, and its infos."""
    tail: int
    """The row of its last observation."""

    @property
    def steps(self) -> int:
        """How many steps are in the arrays."""
        return len(self.shell)

    def go_on(self, episode: Any, tail: int) -> None:
        """Take note of a chunk or piece that was written, as RLlib's ``concat_episode`` does."""
        shell, self.tail = self.shell, tail
        in_pieces = type(episode) is Piece
        infos = episode.infos if in_pieces else episode.infos.data[episode.infos.lookback :]
        shell.infos.data.pop()
        empty = all(type(info) is dict and not info for info in infos)
        shell.infos.data.extend([{} for _ in infos] if empty else copy.deepcopy(infos))
        shell.t = episode.t
        if in_pieces:
            return
        if episode.is_terminated:
            shell.is_terminated = True
        elif episode.is_truncated:
            shell.is_truncated = True
        if episode.custom_data:
            shell.custom_data.update(copy.deepcopy(episode.custom_data))

    def whole(self, transitions: Transitions, rows: Rows) -> Any:
        """Return the episode with its steps.

        Args:
            transitions: where they lie.
            rows: of the steps, in order.
        """
        episode = copy.copy(self.shell)
        episode.observations = _filled(
            episode.observations, transitions.observations[[*rows, self.tail]]
        )
        episode.actions = _filled(episode.actions, transitions.actions[rows])
        episode.rewards = _filled(episode.rewards, transitions.rewards[rows])
        episode.extra_model_outputs = {
            name: _filled(held, transitions.extras[name][rows])
            for name, held in episode.extra_model_outputs.items()
        }
        episode.infos = copy.copy(episode.infos)
        episode.infos.data = list(episode.infos.data)
        return episode


def record_of(episode: Any, tail: int) -> Record:
    """Return what is left of an episode without its steps; it shares nothing that changes."""
    shell = copy.copy(episode)
    for name in ("observations", "actions", "rewards"):
        setattr(shell, name, _past(getattr(episode, name)))
    shell.extra_model_outputs = {n: _past(b) for n, b in episode.extra_model_outputs.items()}
    shell.infos = copy.copy(episode.infos)
    shell.infos.data = copy.deepcopy(episode.infos.data)
    shell._custom_data = copy.deepcopy(episode._custom_data)
    # Kept by an EnvRunner for its own use.
    shell._last_added_observation = shell._last_added_infos = None
    return Record(shell, tail)


def _buffers(episode: Any) -> dict[str, Any]:
    return {
        "observations": episode.observations,
        "actions": episode.actions,
        "rewards": episode.rewards,
        **{f"extra {name}": held for name, held in episode.extra_model_outputs.items()},
    }


def _is_plain(data: Any) -> bool:
    return (
        type(data) is np.ndarray
        and data.dtype.kind in _NUMBERS
        and data.dtype.isnative
        and data.dtype.itemsize <= _LARGEST
    )


def _own(buffer: Any) -> Array:
    """Return what a buffer holds of its episode itself, a view."""
    own: Array = buffer.data[buffer.lookback :]
    return own


def _past(buffer: InfiniteLookbackBuffer) -> InfiniteLookbackBuffer:
    """Return a buffer of what the given one only looks back on."""
    past = copy.copy(buffer)
    past.data = buffer.data[: buffer.lookback].copy()
    return past


def _filled(past: InfiniteLookbackBuffer, own: Array) -> InfiniteLookbackBuffer:
    filled = copy.copy(past)
    filled.data = np.concatenate([past.data, own]) if past.lookback else own
    return filled
