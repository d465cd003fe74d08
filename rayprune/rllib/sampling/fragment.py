"""One call of an EnvRunner's ``sample``: rows of a vector of environments, and whose they are."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tree
from ray.rllib.utils.metrics import WEIGHTS_SEQ_NO

from rayprune.rllib.sampling.episodes import Array, Steps, continued, fill
from rayprune.rllib.sampling.pieces import piece_of


@dataclass(slots=True)
class Rows:
    """What each row holds, for all environments; arrays of shape ``(envs, ...)``."""

    observations: list[Array]
    """As they stand in the episodes."""
    actions: list[Array]
    """The module's, which led to the observations."""
    rewards: list[Array]
    terminated: list[Array]
    truncated: list[Array]
    outputs: list[dict[str, Any]]
    """What else the module gave with the actions."""
    infos: list[Sequence[dict[str, Any]]]
    times: list[float]


@dataclass(slots=True)
class _Part:
    """Rows of one environment that belong to one episode."""

    episode: Any
    place: int
    """Of the environment in the vector."""
    begin: int
    end: int
    """Of its rows; the last one is before it."""


class Fragment:
    """Steps of all environments, row by row; episodes are filled when it ends.

    Args:
        episodes: under way, one of each environment; replaced in place by who makes new ones.
    """

    def __init__(self, episodes: list[Any]) -> None:
        self.rows = Rows([], [], [], [], [], [], [], [])
        self.ended: list[Any] = []
        """Episodes, in the order in which they ended."""
        self._episodes = episodes
        # The first row of each environment's episode, None where that waits for its reset.
        self._begins: list[int | None] = [0] * len(episodes)
        self._parts: list[_Part] = []
        self._filled = 0
        self._stacks: dict[str, Any] = {}

    def __len__(self) -> int:
        return len(self.rows.times)

    def add(
        self,
        observations: Array,
        actions: Array,
        ends: tuple[Array, Array, Array],
        infos: Sequence[dict[str, Any]],
        outputs: dict[str, Any],
    ) -> None:
        """Add the row of this moment: of each environment one step, or a reset.

        Args:
            observations: see `Rows`.
            actions: likewise.
            ends: rewards, and whether an episode was terminated, or truncated; ``(envs,)`` each.
            infos: one of each environment.
            outputs: see `Rows`.
        """
        rows = self.rows
        rows.observations.append(observations)
        rows.actions.append(actions)
        rows.rewards.append(ends[0])
        rows.terminated.append(ends[1])
        rows.truncated.append(ends[2])
        rows.outputs.append(outputs)
        rows.infos.append(infos)
        rows.times.append(time.perf_counter())

    def begin(self, place: int, space: Any) -> None:
        """Begin an environment's episode by the last row, a reset.

        Args:
            place: the environment's.
            space: of the observations in the row, None for the episode's own.
        """
        episode = self._episodes[place]
        self._begins[place] = len(self)
        episode.add_env_reset(self.rows.observations[-1][place], self.rows.infos[-1][place])
        if space is not None:
            episode.observation_space = space

    def end(self, place: int) -> int:
        """End an environment's episode by the last row; return how many steps of it are here."""
        begin = self._begins[place]
        assert begin is not None
        self._begins[place] = None
        self._parts.append(_Part(self._episodes[place], place, begin, len(self)))
        self.ended.append(self._episodes[place])
        return len(self) - begin

    def fill_ended(self, weights_seq_no: int) -> None:
        """Fill the episodes that have ended so far, as lists."""
        for part in self._parts[self._filled :]:
            fill(part.episode, self._steps(part, weights_seq_no), to_numpy=False)
        self._filled = len(self._parts)

    def fill_all(self, weights_seq_no: int) -> None:
        """Fill all episodes, as lists, and forget their rows."""
        self.fill_ended(weights_seq_no)
        for part in self._open_parts():
            fill(part.episode, self._steps(part, weights_seq_no), to_numpy=False)
        self.restart(self._episodes)

    def finish_ended(self, weights_seq_no: int, *, to_numpy: bool) -> None:
        """Fill the episodes that have ended, for good."""
        for part in self._parts[: self._filled]:
            if to_numpy:
                part.episode.to_numpy()
        self._stack()
        for part in self._parts[self._filled :]:
            fill(part.episode, self._steps(part, weights_seq_no), to_numpy=to_numpy)

    def finish_open(
        self, weights_seq_no: int, lookback: int, *, to_numpy: bool, in_pieces: bool
    ) -> tuple[list[Any], list[Any]]:
        """Fill the episodes under way; return them, and those that go on where they are cut.

        Args:
            weights_seq_no: of the module that acted.
            lookback: how many steps an episode that goes on looks back to.
            to_numpy: make arrays of what the cut ones hold.
            in_pieces: return a `Piece` in an episode's place, where that is possible.
        """
        self._stack()
        parts = {part.place: part for part in self._open_parts()}
        handed, going_on = [], []
        for place, episode in enumerate(self._episodes):
            part = parts.get(place)
            steps = None if part is None else self._steps(part, weights_seq_no)
            piece = piece_of(episode, steps, lookback) if in_pieces and steps else None
            handed.append(piece or episode)
            going_on.append(episode if piece else continued(episode, steps, lookback))
            if steps is not None and piece is None:
                fill(episode, steps, to_numpy=to_numpy)
            elif piece is None and to_numpy and episode.t:
                episode.to_numpy()
        return handed, going_on

    def restart(self, episodes: list[Any]) -> None:
        """Go on with new episodes, all of them begun; what isn't filled of others is forgotten."""
        self._episodes = episodes
        self._begins = [len(self)] * len(episodes)

    def is_finite(self) -> bool:
        """Whether all rewards and observations are numbers."""
        stacks = self._stack()
        return _is_finite(stacks["rewards"]) and _is_finite(stacks["observations"])

    def _open_parts(self) -> list[_Part]:
        return [
            _Part(self._episodes[place], place, begin, len(self))
            for place, begin in enumerate(self._begins)
            if begin is not None and begin < len(self)
        ]

    def _stack(self) -> dict[str, Any]:
        """Make one array of the rows of each column, shape ``(time, envs, ...)``, if not yet."""
        if not self._stacks:
            rows = self.rows
            for name in ("observations", "actions", "rewards", "outputs"):
                held = getattr(rows, name)
                self._stacks[name] = _stacked(held)
                held.clear()  # images would be in memory twice
        return self._stacks

    def _steps(self, part: _Part, weights_seq_no: int) -> Steps:
        rows, last = self.rows, part.end - 1
        column = self._column
        outputs = column("outputs", part)
        outputs[WEIGHTS_SEQ_NO] = np.full(part.end - part.begin, weights_seq_no)
        return Steps(
            observations=column("observations", part),
            actions=column("actions", part),
            rewards=column("rewards", part),
            infos=[infos[part.place] for infos in rows.infos[part.begin : part.end]],
            outputs=outputs,
            terminated=rows.terminated[last][part.place],
            truncated=rows.truncated[last][part.place],
            began=rows.times[part.begin],
            ended=rows.times[last],
        )

    def _column(self, name: str, part: _Part) -> Any:
        place, stack = part.place, self._stacks.get(name)
        if stack is not None:
            return _each(lambda leaf: leaf[part.begin : part.end, place], stack)
        held = getattr(self.rows, name)[part.begin : part.end]
        return _stacked([_each(lambda leaf: leaf[place], row) for row in held])


def _is_finite(values: Array) -> bool:
    # A sum of squares is far cheaper than two looks at all of them; a large number's may overflow.
    if values.dtype.kind != "f" or math.isfinite(np.vdot(values, values)):
        return True
    # What isn't a number is the largest and the smallest, if there is such a one.
    return math.isfinite(values.max(initial=0.0)) and math.isfinite(values.min(initial=0.0))


def _stacked(rows: list[Any]) -> Any:
    first = rows[0]
    if isinstance(first, dict):
        return {name: _stacked([row[name] for row in rows]) for name in first}
    if isinstance(first, tuple):
        return tree.map_structure(lambda *leaves: np.stack(leaves), *rows)
    return first[np.newaxis] if len(rows) == 1 and np.ndim(first) else np.stack(rows)


def _each(function: Any, held: Any) -> Any:
    if isinstance(held, dict):
        return {name: _each(function, value) for name, value in held.items()}
    return function(held) if isinstance(held, np.ndarray) else tree.map_structure(function, held)
