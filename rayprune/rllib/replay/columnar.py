"""What RLlib's two episode buffers have in common where they keep their steps in arrays."""

from __future__ import annotations

from collections import deque
from typing import Any, ClassVar, Final

import numpy as np
from ray.rllib.utils import force_list
from ray.rllib.utils.replay_buffers.episode_replay_buffer import EpisodeReplayBuffer

from rayprune.rllib.connectors.sampling import NormalisingBuffer
from rayprune.rllib.replay.n_step_columns import Columns, NStep, columns_of
from rayprune.rllib.replay.pieces import Piece, whole_episodes
from rayprune.rllib.replay.records import Record, chunk_of, reason_against, record_of
from rayprune.rllib.replay.tally import Tally
from rayprune.rllib.replay.transitions import Array, Order, Rows, Transitions
from rayprune.rllib.settings.kept_parts import keep

_DIFFERENT: Final = "episodes differ in dtypes or shapes"


class RLlibsOwn:
    """An attribute of RLlib's buffer that arrays stand for: read, it is made of them.

    From then on the buffer is RLlib's own in all that it does, so whoever looks into it or changes
    something there is served, only more slowly.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        """Remember the name."""
        self._name = name

    def __get__(self, buffer: Any, owner: type) -> Any:
        """Return what RLlib has there."""
        if buffer is None:
            return self
        buffer.leave_arrays(f"its `{self._name}` is asked for")
        return buffer._kept[self._name]

    def __set__(self, buffer: Any, value: Any) -> None:
        """Keep what RLlib puts there."""
        buffer.__dict__.setdefault("_kept", {})[self._name] = value


class Columnar(NormalisingBuffer, EpisodeReplayBuffer):
    """A replay buffer of RLlib's whose steps lie in arrays, drawn and gathered all at once.

    All draws are RLlib's, from the same generator in the same order. What can't be put into arrays
    (dict observations, episodes with ids of their own, ...) turns it into RLlib's buffer.
    """

    ARRAYS_FOR: ClassVar[tuple[str, ...]] = ("episodes", "_indices")
    """Attributes of RLlib's that the arrays stand for."""

    episodes = RLlibsOwn()
    _indices = RLlibsOwn()

    _steps: Transitions | None = None
    """None: RLlib's buffer, with its own attributes."""
    _order: Order
    _records: deque[Record]
    _tally: Tally

    _kept: dict[str, Any]
    """Attributes of RLlib's while there are no arrays."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.enter_arrays()

    def add(  # type: ignore[override]  # RLlib's own name for it
        self, episodes: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Add episodes or chunks of them, or pieces of those that are here."""
        episodes = [one if self._takes(one) else one.whole() for one in force_list(episodes)]
        self.take_statistics([one for one in episodes if type(one) is not Piece])
        if self._steps is not None and (reason := self._reason_against(episodes)):
            self.leave_arrays(reason)
        if self._steps is None:
            super().add(whole_episodes(episodes), *args, **kwargs)
        else:
            self._add(self._steps, episodes, *args, **kwargs)

    def _takes(self, episode: Any) -> bool:
        """Whether something is an episode, or a piece of one that is in the arrays yet."""
        if type(episode) is not Piece:
            return True
        return self._steps is not None and episode.id_ in self.episode_id_to_index

    def sample_columns(
        self, num_items: int, n_step: NStep = 1, gamma: float = 0.99, beta: float = 0.0
    ) -> Columns:
        """Return a train batch: the columns that RLlib makes of ``sample(sample_episodes=True)``.

        Args:
            num_items: transitions. RLlib's uniform buffer gives more where ``n_step`` is above 3
                and episodes end: so does this.
            n_step: steps between the two observations, or a range ``(low, high)`` to draw from,
                without ``high``.
            gamma: discount of the rewards between them.
            beta: exponent of the importance weights; the uniform buffer's weights are 1.

        Returns:
            ``obs``, ``new_obs``, ``actions``, ``rewards``, ``terminateds``, ``truncateds``, then
            ``n_step`` and ``weights`` (``weights`` first where prioritised).
        """
        if self._steps is not None and not (num_items > 0 and _is_n_step(n_step)):
            self.leave_arrays(f"{num_items} items with an n-step of {n_step} are asked for")
        if self._steps is None:
            return columns_of(
                self.sample(
                    num_items=num_items, n_step=n_step, gamma=gamma, beta=beta, sample_episodes=True
                )
            )
        return self.normalised(self._sample(self._steps, num_items, n_step, gamma, beta))

    def get_num_episodes(self, module_id: Any = None) -> int:
        """Return how many episodes are stored."""
        if self._steps is None:
            return super().get_num_episodes(module_id)
        return len(self._records)

    def get_num_timesteps(self, module_id: Any = None) -> int:
        """Return how many steps are stored."""
        if self._steps is None:
            return super().get_num_timesteps(module_id)
        return len(self._order)

    def get_metrics(self) -> Any:
        """Return what was counted since the last call, see `Tally`."""
        if self._steps is None:
            return super().get_metrics()
        return self._tally.results(self)

    def get_state(self) -> dict[str, Any]:
        """Return RLlib's state."""
        if self._steps is None:
            return super().get_state()
        steps, self._kept = self._steps, self._as_rllibs()
        self._steps = None
        try:
            return super().get_state()
        finally:
            self._steps, self._kept = steps, {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Take over RLlib's state."""
        self.leave_arrays("a state is set")
        super().set_state(state)
        self.enter_arrays()

    def enter_arrays(self) -> None:
        """Put what RLlib's attributes hold into arrays, where that is possible."""
        assert self._steps is None, "it is RLlib's yet"
        episodes = self._kept["episodes"]
        reason = next(filter(None, map(reason_against, episodes)), "")
        steps, records, rows = Transitions(), deque[Record](), list[Rows]()
        for number, episode in enumerate(episodes if not reason else ()):
            chunk = chunk_of(episode)
            if steps.form and chunk.form != steps.form:
                reason = _DIFFERENT
                break
            rows.append(steps.write(chunk, number + self._num_episodes_evicted))
            records.append(record_of(episode, int(rows[-1][-1])))
        indices = self._kept["_indices"] if not reason else []
        in_order = [rows[i[0] - self._num_episodes_evicted][i[1]] for i in indices]
        order = Order()
        order.append(np.array(in_order, np.int64))
        if reason := reason or self._enter_more(self._kept, steps, order.all()):
            keep("replay buffer", reason)
            return
        self._order, self._records = order, records
        self._tally = Tally(self._metrics_num_episodes_for_smoothing)
        self._tally.take_over(self)
        self._steps, self._kept = steps, {}

    def leave_arrays(self, reason: str) -> None:
        """Become RLlib's own buffer, with all that it would hold by now; it stays that."""
        if self._steps is not None:
            keep("replay buffer", reason)
            self._tally.hand_over(self)
            self._kept = self._as_rllibs()
            self._steps = None
            del self._order, self._records, self._tally

    def __getstate__(self) -> dict[str, Any]:
        """Return what a pickle holds: attributes, and RLlib's slots but what arrays stand for."""
        slots = [name for name in EpisodeReplayBuffer.__slots__ if name not in self.ARRAYS_FOR]
        return {**vars(self), **{n: getattr(self, n) for n in slots if hasattr(self, n)}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over a pickle's."""
        for name, value in state.items():
            setattr(self, name, value)

    def _enter_more(self, kept: dict[str, Any], steps: Transitions, rows: Rows) -> str:
        """Put more of RLlib's attributes into arrays; return why that can't be done, if so.

        Args:
            kept: the attributes, see `ARRAYS_FOR`.
            steps: filled already.
            rows: of all steps in the order of RLlib's ``_indices``.
        """
        return ""

    def _add(self, steps: Transitions, episodes: list[Any]) -> None:
        """Add episodes as RLlib's buffer does."""
        raise NotImplementedError

    def _sample(
        self, steps: Transitions, items: int, n_step: NStep, gamma: float, beta: float
    ) -> Columns:
        """Draw as RLlib's buffer does, and return the columns."""
        raise NotImplementedError

    def _reason_against(self, episodes: list[Any]) -> str:
        """Return why episodes can't be added to the arrays, in words; empty where they can."""
        assert self._steps is not None, "there are arrays"
        known: dict[str, tuple[int, bool, Any]] = {}
        form = self._steps.form
        for episode in episodes:
            # Of a piece it is known: one of its episode's form is what all others are.
            if type(episode) is not Piece and (reason := reason_against(episode)):
                return reason
            own = chunk_of(episode).form
            if own != form and form:
                return _DIFFERENT
            form = own
            before = known.get(episode.id_) or self._end_of(episode.id_)
            if before and not _goes_on(episode, *before):
                # RLlib's buffer says what is wrong with it.
                return "a chunk doesn't go on where the last one of its episode ended"
            known[episode.id_] = _end(episode)
        return ""

    def _end_of(self, id_: str) -> tuple[int, bool, Any] | None:
        """Return an episode's time, whether it is done, and its last observation."""
        assert self._steps is not None, "there are arrays"
        if id_ not in self.episode_id_to_index:
            return None
        record = self._record_of(id_)
        shell = record.shell
        return shell.t, shell.is_done, self._steps.observations[record.tail]

    def _record_of(self, id_: str) -> Record:
        return self._records[self.episode_id_to_index[id_] - self._num_episodes_evicted]

    def _append(self, steps: Transitions, episode: Any) -> tuple[Rows, bool]:
        """Write an episode or its next chunk; return the rows of its steps, and if it is new."""
        chunk = chunk_of(episode)
        if episode.id_ in self.episode_id_to_index:
            record = self._record_of(episode.id_)
            rows = steps.write(chunk, self.episode_id_to_index[episode.id_], record.tail)
            record.go_on(episode, int(rows[-1]))
            is_new = False
        else:
            number = len(self._records) + self._num_episodes_evicted
            rows = steps.write(chunk, number)
            # A piece's episode may just have left.
            (whole,) = whole_episodes([episode])
            self._records.append(record_of(whole, int(rows[-1])))
            self.episode_id_to_index[episode.id_] = number
            is_new = True
        self._order.append(rows[:-1])
        return rows[:-1], is_new

    def _note_sampled(
        self, steps: Transitions, rows: Rows, items: int, n_step: float, resamples: int = 0
    ) -> None:
        self.sampled_timesteps += items
        self._tally.note_sampled(
            items=items,
            episodes=len(set(steps.episode[rows].tolist())),
            steps=len(set(rows.tolist())),
            n_step=n_step,
            resamples=resamples,
        )

    def _as_rllibs(self) -> dict[str, Any]:
        """Return the attributes that RLlib's buffer would have, see `ARRAYS_FOR`."""
        assert self._steps is not None, "there are arrays"
        rows, evicted = self._order.all(), self._num_episodes_evicted
        numbers = self._steps.episode[rows]
        by_episode = np.argsort(numbers, kind="stable")
        firsts = np.searchsorted(numbers[by_episode], np.arange(len(self._records) + 1) + evicted)
        times = np.empty(len(rows), np.int64)
        times[by_episode] = np.arange(len(rows)) - np.repeat(firsts[:-1], np.diff(firsts))
        return {
            "episodes": deque(
                record.whole(self._steps, rows[by_episode[begin:end]])
                for record, begin, end in zip(self._records, firsts[:-1], firsts[1:], strict=True)
            ),
            "_indices": list(zip(numbers.tolist(), times.tolist(), strict=True)),
        }


def steps_taken(path: Rows) -> Array:
    """Return how many steps walks took before they came to their episode's end."""
    taken: Array = np.count_nonzero(path[1:] != path[:-1], axis=0)
    return taken


def longest(n_step: NStep) -> int:
    """Return the most steps that may be between a transition's observations.

    >>> longest(3), longest((1, 5))
    (3, 4)
    """
    return n_step[1] - 1 if isinstance(n_step, tuple) else n_step


def _is_n_step(n_step: Any) -> bool:
    if type(n_step) is int:
        return n_step > 0
    return (
        type(n_step) is tuple
        and [type(bound) for bound in n_step] == [int, int]
        and 0 < n_step[0] < n_step[1]
    )


def _goes_on(episode: Any, time: int, is_done: bool, observation: Any) -> bool:
    """Whether a chunk or a piece begins where its episode was left."""
    held = episode.observations
    first = held[0] if type(episode) is Piece else held.data[held.lookback]
    return not is_done and time == episode.t_started and np.array_equal(first, observation)


def _end(episode: Any) -> tuple[int, bool, Any]:
    """Return a chunk's or a piece's time, whether it is done, and its last observation."""
    if type(episode) is Piece:
        return episode.t, False, episode.observations[-1]
    return episode.t, episode.is_done, episode.observations.data[-1]
