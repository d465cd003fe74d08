"""RLlib's prioritised episode buffer with its steps and their priorities in arrays."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from ray.rllib.execution.segment_tree import MinSegmentTree, SumSegmentTree

from rayprune.rllib.connectors.sampling import NormalisingPrioritizedEpisodeReplayBuffer
from rayprune.rllib.replay.columnar import Columnar, RLlibsOwn, longest, steps_taken
from rayprune.rllib.replay.n_step_columns import Columns, NStep, gather
from rayprune.rllib.replay.priorities import PRIORITY_TYPES, PriorityTrees
from rayprune.rllib.replay.records import Record
from rayprune.rllib.replay.transitions import Array, Rows, Transitions

_LEAST: Final = 1e-12
"""RLlib's least priority."""


class ColumnarPrioritizedEpisodeReplayBuffer(Columnar, NormalisingPrioritizedEpisodeReplayBuffer):
    """RLlib's prioritised buffer, which normalises where statistics come with the episodes."""

    ARRAYS_FOR = (*Columnar.ARRAYS_FOR, "_sum_segment", "_min_segment", "_tree_idx_to_sample_idx")

    _sum_segment = RLlibsOwn()
    _min_segment = RLlibsOwn()
    _tree_idx_to_sample_idx = RLlibsOwn()

    _trees: PriorityTrees
    _row_of_leaf: Rows
    """-1 where a leaf is free."""

    def add(  # type: ignore[override]  # RLlib's own name for it
        self, episodes: Any, weight: Any = None
    ) -> None:
        """Add episodes or chunks of them.

        Args:
            episodes: one, or a list.
            weight: the priority of their steps; None is the highest so far.
        """
        if self._steps is not None and type(self._first_priority(weight)) not in PRIORITY_TYPES:
            self.leave_arrays("a priority is of another type")
        super().add(episodes, weight)

    def update_priorities(self, priorities: Any, module_id: Any = None) -> None:
        """Set the priorities of the transitions that were sampled last.

        Args:
            priorities: as many, in their order; TD errors as a rule.
            module_id: unused.
        """
        if self._steps is None:
            super().update_priorities(priorities, module_id)
            return
        leaves = self._last_sampled_indices
        assert len(priorities) == len(leaves), "a priority for each transition sampled"
        if _all_single(priorities):
            # One by one: NumPy's power of an array may differ from a number's in the last bit.
            values = [priority**self._alpha for priority in priorities]
            highest = max(self._max_priority, priorities.max())
        else:
            raised = list(priorities)
            if not min(raised, default=_LEAST) >= _LEAST:  # also of what is no number
                raised = [max(priority, _LEAST) for priority in raised]
            values = [priority**self._alpha for priority in raised]
            highest = max([self._max_priority, *raised])
        if not {*map(type, values)} <= PRIORITY_TYPES:
            self.leave_arrays("priorities are of another type")
            super().update_priorities(priorities, module_id)
            return
        if values:
            self._trees.set(leaves, values)
        self._max_priority = highest
        leaves.clear()

    def _first_priority(self, weight: Any) -> Any:
        return (self._max_priority if weight is None else weight) ** self._alpha

    def _add(self, steps: Transitions, episodes: list[Any], weight: Any = None) -> None:
        ids = [episode.id_ for episode in episodes]
        for episode in episodes:
            self._num_timesteps += len(episode)
            self._num_timesteps_added += len(episode)
        evicted = self._evict(steps, episodes, ids)
        gone = {record.shell.id_ for record in evicted}
        priority, added, added_steps = self._first_priority(weight), 0, 0
        for episode in episodes:
            # RLlib drops chunks of an episode that it has just evicted.
            if episode.id_ not in gone:
                rows, is_new = self._append(steps, episode)
                self._give_leaves(steps, rows, priority)
                added += is_new
                added_steps += len(rows)
        self._tally.note_added(
            stored=(len(self._records), len(self._order)),
            added=(added, added_steps),
            evicted=(len(evicted), sum(record.steps for record in evicted)),
        )

    def _give_leaves(self, steps: Transitions, rows: Rows, priority: Any) -> None:
        leaves = [self._free_nodes.popleft() for _ in rows]
        self._max_idx = max(self._max_idx, *leaves)
        self._trees.set(leaves, [priority] * len(leaves))
        steps.leaf[rows] = leaves
        self._row_of_leaf[leaves] = rows

    def _evict(self, steps: Transitions, episodes: list[Any], ids: list[str]) -> list[Record]:
        """Drop the oldest episodes until there is room for new ones, and return them."""
        evicted: dict[str, Record] = {}
        numbers = []
        while self._num_timesteps > self.capacity and self._left_beside(ids, evicted) != 1:
            record = self._records.popleft()
            id_ = record.shell.id_
            evicted[id_] = record
            numbers.append(self.episode_id_to_index.pop(id_))
            if id_ in ids:
                # As RLlib: of several chunks, only the first is taken off.
                self._num_timesteps -= len(episodes[ids.index(id_)])
                self._num_timesteps_added -= len(episodes[ids.index(id_)])
            self._num_timesteps -= record.steps
            self._num_episodes_evicted += 1
        if evicted:
            self._take_out(steps, list(evicted.values()), numbers)
        return list(evicted.values())

    def _left_beside(self, ids: list[str], evicted: Any) -> int:
        """Return how many episodes there are with new ones, without evicted ones."""
        index = self.episode_id_to_index
        return len(index) + len({id_ for id_ in ids if id_ not in index and id_ not in evicted})

    def _take_out(self, steps: Transitions, records: list[Record], numbers: list[int]) -> None:
        rows = self._order.remove(steps.episode, numbers, sum(record.steps for record in records))
        leaves = steps.leaf[rows].tolist()
        self._free_nodes.extendleft(leaves)
        for leaf in leaves:
            self._max_idx -= leaf == self._max_idx
        self._trees.clear(leaves)
        self._row_of_leaf[leaves] = -1
        steps.release(np.append(rows, [record.tail for record in records]))

    def _sample(
        self, steps: Transitions, items: int, n_step: NStep, gamma: float, beta: float
    ) -> Columns:
        assert beta >= 0.0, "importance weights have a positive exponent"
        paths, found, drawn, missing = list[Rows](), list[Array](), list[Array](), items
        resamples = 0
        while missing:
            draws, n_steps = self._draw(missing, n_step)
            leaves = self._trees.find(draws)
            path = steps.walk(self._rows_of(leaves), longest(n_step))
            if len(path) > 2:
                whole = steps_taken(path) >= n_steps
                path, leaves, n_steps = path[:, whole], leaves[whole], n_steps[whole]
            resamples += missing - len(leaves)
            missing -= len(leaves)
            for parts, part in ((paths, path), (found, leaves), (drawn, n_steps)):
                parts.append(part)
        path, leaves, n_steps = (
            np.concatenate(paths, axis=1),
            np.concatenate(found),
            np.concatenate(drawn),
        )
        self._last_sampled_indices = leaves.tolist()
        columns = gather(steps, path, n_steps if isinstance(n_step, tuple) else None, gamma)
        self._note_sampled(steps, path[0], items, int(n_steps.sum()) / items, resamples)
        return {**columns, "weights": self._weights(leaves, beta), "n_step": n_steps}

    def _draw(self, count: int, n_step: NStep) -> tuple[Array, Array]:
        """Draw shares of the total priority, and the n-step of each."""
        if not isinstance(n_step, tuple):
            return self.rng.random(count), np.full(count, n_step)
        # In turns, as RLlib: NumPy can't draw floats and integers in one call.
        pairs = [(self.rng.random(), self.rng.integers(*n_step)) for _ in range(count)]
        return np.array([share for share, _ in pairs]), np.array([n for _, n in pairs])

    def _rows_of(self, leaves: Array) -> Rows:
        rows: Rows = self._row_of_leaf[leaves]
        if rows.min() < 0:
            raise KeyError(leaves[rows.argmin()])
        return rows

    def _weights(self, leaves: Array, beta: float) -> Array:
        """Return importance weights, of the type that RLlib's arithmetic gives them."""
        total, stored = self._trees.total, len(self._order)
        highest = (self._trees.lowest / total * stored) ** (-beta)
        expected = self._trees.at(leaves) / total * stored
        # One by one, see `update_priorities`; of Python floats, for theirs is yet another power.
        numbers = expected if expected.dtype == np.float32 else expected.tolist()
        return np.array([number ** (-beta) for number in numbers]) / highest

    def _enter_more(self, kept: dict[str, Any], steps: Transitions, rows: Rows) -> str:
        trees = PriorityTrees(kept["_sum_segment"].capacity)
        try:
            trees.take_over(kept["_sum_segment"].value, kept["_min_segment"].value)
        except TypeError as error:
            return str(error)
        self._trees, self._row_of_leaf = trees, np.full(trees.leaves, -1, np.int64)
        leaves = [index[2] for index in kept["_indices"]]
        if leaves:
            steps.leaf[rows] = leaves
            self._row_of_leaf[leaves] = rows
        return ""

    def _as_rllibs(self) -> dict[str, Any]:
        assert self._steps is not None, "there are arrays"
        kept, trees = super()._as_rllibs(), self._trees
        leaves = self._steps.leaf[self._order.all()].tolist()
        sums, minima = SumSegmentTree(trees.leaves), MinSegmentTree(trees.leaves)
        sums.set_state(trees.sums_as_list())
        minima.set_state(trees.minima_as_list())
        return {
            **kept,
            "_indices": [(*i, leaf) for i, leaf in zip(kept["_indices"], leaves, strict=True)],
            "_sum_segment": sums,
            "_min_segment": minima,
            "_tree_idx_to_sample_idx": {leaf: place for place, leaf in enumerate(leaves)},
        }


def _all_single(priorities: Any) -> bool:
    """Whether priorities are TD errors as torch gives them, none of them too small."""
    return (
        isinstance(priorities, np.ndarray)
        and priorities.dtype == np.float32
        and priorities.size > 0
        and bool(priorities.min() >= _LEAST)
    )
