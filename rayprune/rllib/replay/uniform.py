"""RLlib's uniform episode buffer with its steps in arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from rayprune.rllib.connectors.sampling import NormalisingEpisodeReplayBuffer
from rayprune.rllib.replay.columnar import Columnar, longest, steps_taken
from rayprune.rllib.replay.n_step_columns import Columns, NStep, gather
from rayprune.rllib.replay.transitions import Array, Rows, Transitions


class ColumnarEpisodeReplayBuffer(Columnar, NormalisingEpisodeReplayBuffer):
    """RLlib's uniform buffer, which normalises where statistics come with the episodes."""

    def _add(self, steps: Transitions, episodes: list[Any], *_: Any, **__: Any) -> None:
        added = added_steps = evicted = evicted_steps = 0
        for episode in episodes:
            self._num_timesteps += len(episode)
            self._num_timesteps_added += len(episode)
            added_steps += len(episode)
            added += self._append(steps, episode)[1]
            while self._num_timesteps > self.capacity and len(self._records) > 1:
                evicted_steps += self._evict(steps)
                evicted += 1
        self._tally.note_added(
            stored=(len(self._records), len(self._order)),
            added=(added, added_steps),
            evicted=(evicted, evicted_steps),
        )

    def _evict(self, steps: Transitions) -> int:
        """Drop the oldest episode; return how many steps it had."""
        record = self._records.popleft()
        number = self.episode_id_to_index.pop(record.shell.id_)
        rows = self._order.remove(steps.episode, [number], record.steps)
        steps.release(np.append(rows, record.tail))
        self._num_timesteps -= record.steps
        self._num_episodes_evicted += 1
        return record.steps

    def _sample(
        self, steps: Transitions, items: int, n_step: NStep, gamma: float, beta: float
    ) -> Columns:
        # Made by RLlib's in sampling, and empty as long as nothing has priorities.
        self._last_sampled_indices: list[int] = []
        paths, drawn, counted = list[Rows](), list[Array](), 0
        while counted < items:
            rows, n_steps = self._draw(items - counted, n_step)
            paths.append(steps.walk(rows, longest(n_step)))
            drawn.append(n_steps)
            counted += _counted(paths[-1], n_steps)
        path, n_steps = np.concatenate(paths, axis=1), np.concatenate(drawn)
        columns = gather(steps, path, n_steps if isinstance(n_step, tuple) else None, gamma)
        self._note_sampled(steps, path[0], items, int(n_steps.sum()) / items)
        return {**columns, "n_step": n_steps, "weights": np.ones(len(n_steps))}

    def _draw(self, count: int, n_step: NStep) -> tuple[Rows, Array]:
        """Draw steps, and the n-step of each."""
        stored = len(self._order)
        if not isinstance(n_step, tuple):
            positions = self.rng.integers(stored, size=count)
            return self._order.at(positions), np.full(count, n_step)
        # RLlib draws one after the other in turns; so does this.
        low, high = n_step
        draws = self.rng.integers(np.tile([0, low], count), np.tile([stored, high], count))
        return self._order.at(draws[::2]), draws[1::2]


def _counted(path: Rows, n_steps: Array) -> int:
    """Return for how many items RLlib takes transitions: less where an n-step was cut short.

    A transition that lacks ``k`` steps counts for ``2 - k`` items if ``k`` is above 2, else for
    one, so that the batch comes out larger than asked for.
    """
    if len(path) <= 4:
        return len(n_steps)
    lacking = n_steps - np.minimum(steps_taken(path), n_steps)
    return int(np.where(lacking > 2, 2 - lacking, 1).sum())
