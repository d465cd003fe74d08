"""Steps of episodes in arrays, and the order in which they were added."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Rows = npt.NDArray[np.int64]

_FIRST_SIZE: Final = 1024
"""Rows that are allocated at first; the arrays double as they fill."""


class Chunk(NamedTuple):
    """Steps of one episode, one after the other, without what it looks back on."""

    observations: Array
    """Shape ``(steps + 1, ...)``."""
    actions: Array
    """Shape ``(steps, ...)``."""
    rewards: Array
    """Shape ``(steps,)``."""
    extras: dict[str, Array]
    """The module's other outputs by name, each of shape ``(steps, ...)``."""
    terminated: bool
    """Whether the last step ended the episode."""
    truncated: bool
    """Whether the last step cut it off."""

    @property
    def form(self) -> list[Any]:
        """Dtypes and shapes of what is in it; only chunks of one form go into the same arrays."""
        arrays = {"": self.observations, **self.extras}
        names = sorted(arrays)
        return [
            *names,
            *((arrays[name].dtype, arrays[name].shape[1:]) for name in names),
            (self.actions.dtype, self.actions.shape[1:], self.rewards.dtype),
        ]


class Transitions:
    """Steps in arrays, a row each, with links to the next.

    An episode's last observation has a row too, its *tail*, whose next row is itself, with reward
    0 and no end: who walks on past an episode's end stays there. The step that follows is written
    into the tail.
    """

    def __init__(self) -> None:
        self.next_row: Rows = np.empty(0, np.int64)
        """The row of the next step of the same episode."""
        self.episode: Rows = np.empty(0, np.int64)
        """Number of the episode that a row belongs to."""
        self.leaf: Rows = np.empty(0, np.int64)
        """Where a row's priority is kept, if it has one."""
        self.terminateds: Array = np.empty(0, np.bool_)
        self.truncateds: Array = np.empty(0, np.bool_)
        self.observations: Array = np.empty(0)
        self.actions: Array = np.empty(0)
        self.rewards: Array = np.empty(0)
        self.extras: dict[str, Array] = {}
        self.form: list[Any] = []
        """Of the chunks here, see `Chunk.form`; empty before the first."""
        self._used = 0
        self._free: list[int] = []

    def write(self, chunk: Chunk, episode: int, tail: int | None = None) -> Rows:
        """Write a chunk's steps.

        Args:
            chunk: of the same form as all others.
            episode: the episode's number.
            tail: of the episode so far, where the chunk goes on with it.

        Returns:
            The rows of its steps and of the new tail, shape ``(steps + 1,)``.
        """
        if not self.form:
            self._make_arrays(chunk)
        steps = len(chunk.rewards)
        new = self._allocate(steps + (tail is None))
        rows = np.array(new if tail is None else [tail, *new], np.int64)
        done, last, end = rows[:-1], rows[-2], rows[-1]
        self.observations[rows] = chunk.observations
        self.actions[done] = chunk.actions
        self.rewards[done] = chunk.rewards
        for name, values in chunk.extras.items():
            self.extras[name][done] = values
        self.rewards[end] = 0
        self.terminateds[rows] = False
        self.truncateds[rows] = False
        self.terminateds[last] = chunk.terminated
        # RLlib takes over one of both where it joins chunks.
        self.truncateds[last] = chunk.truncated and not (chunk.terminated and tail is not None)
        self.next_row[done] = rows[1:]
        self.next_row[end] = end
        self.episode[rows] = episode
        return rows

    def release(self, rows: Rows) -> None:
        """Give rows free for others."""
        self._free.extend(rows.tolist())

    def walk(self, rows: Rows, steps: int) -> Rows:
        """Return where walks from rows lead, shape ``(steps + 1, rows)``, rows themselves first."""
        path = np.empty((steps + 1, len(rows)), np.int64)
        path[0] = rows
        for step in range(steps):
            self.next_row.take(path[step], out=path[step + 1], mode="clip")
        return path

    def __getstate__(self) -> dict[str, Any]:
        """Return what a pickle holds: arrays as long as they are filled."""
        state = {name: self._shortened(held) for name, held in vars(self).items()}
        return {**state, "extras": {n: self._shortened(held) for n, held in self.extras.items()}}

    def _shortened(self, held: Any) -> Any:
        return held[: self._used] if isinstance(held, np.ndarray) else held

    def _make_arrays(self, chunk: Chunk) -> None:
        self.form = chunk.form
        for name in ("observations", "actions", "rewards"):
            setattr(self, name, _empty_like(getattr(chunk, name)))
        self.extras = {name: _empty_like(values) for name, values in chunk.extras.items()}

    def _allocate(self, count: int) -> list[int]:
        """Return rows to write to: the last to be released, then new ones."""
        reused = min(count, len(self._free))
        rows = [self._free.pop() for _ in range(reused)]
        if fresh := count - reused:
            self._grow_to(self._used + fresh)
            rows += range(self._used, self._used + fresh)
            self._used += fresh
        return rows

    def _grow_to(self, size: int) -> None:
        if size <= len(self.rewards):
            return
        size = max(size, 2 * len(self.rewards), _FIRST_SIZE)
        for name, held in vars(self).items():
            if isinstance(held, np.ndarray):
                setattr(self, name, self._longer(held, size))
        self.extras = {name: self._longer(held, size) for name, held in self.extras.items()}

    def _longer(self, held: Array, size: int) -> Array:
        longer = np.empty((size, *held.shape[1:]), held.dtype)
        longer[: self._used] = held[: self._used]
        return longer


class Order:
    """Rows in the order in which their steps were added, where the oldest episode may leave."""

    def __init__(self) -> None:
        self._rows: Rows = np.empty(_FIRST_SIZE, np.int64)
        self._begin = 0
        self._end = 0

    def __len__(self) -> int:
        """Return how many steps there are."""
        return self._end - self._begin

    def at(self, positions: Rows) -> Rows:
        """Return the rows at positions from the oldest on."""
        return self._rows[positions + self._begin]

    def all(self) -> Rows:
        """Return all rows, a view."""
        return self._rows[self._begin : self._end]

    def append(self, rows: Rows) -> None:
        """Add rows as the newest."""
        end = self._end + len(rows)
        if end > len(self._rows):
            self._make_room(len(self) + len(rows))
            end = self._end + len(rows)
        self._rows[self._end : end] = rows
        self._end = end

    def remove(self, episode_of: Rows, episodes: list[int], count: int) -> Rows:
        """Take out the steps of the oldest episodes.

        Args:
            episode_of: numbers of rows' episodes, see `Transitions.episode`.
            episodes: of which all steps go. They are the oldest, so their steps lie near the
                beginning, and what stays of these is moved, instead of all the rest.
            count: how many steps they have.

        Returns:
            Their rows, in order.
        """
        span = 2 * count + 64
        while True:
            stop = min(self._begin + span, self._end)
            window = self._rows[self._begin : stop]
            gone = np.isin(episode_of[window], episodes)
            if np.count_nonzero(gone) == count:
                break
            assert stop < self._end, "all steps of an episode are here"
            span *= 4
        removed, kept = window[gone], window[~gone]
        self._begin = stop - len(kept)
        self._rows[self._begin : stop] = kept
        return removed

    def __getstate__(self) -> dict[str, Any]:
        """Return what a pickle holds: no room that isn't used."""
        return {"_rows": self.all().copy(), "_begin": 0, "_end": len(self)}

    def _make_room(self, size: int) -> None:
        """Move all rows to the beginning of an array that is long enough for twice as many."""
        rows = np.empty(2 * size, np.int64)
        rows[: len(self)] = self.all()
        self._rows, self._begin, self._end = rows, 0, len(self)


def _empty_like(values: Array) -> Array:
    return np.empty((0, *values.shape[1:]), values.dtype)
