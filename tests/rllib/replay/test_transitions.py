"""Rows and their order, by hand."""

from __future__ import annotations

import numpy as np

from rayprune.rllib.replay.transitions import Chunk, Order, Transitions


def chunk(*observations: float, done: bool = False) -> Chunk:
    numbers = np.array(observations, np.float32)
    return Chunk(numbers, numbers[:-1] + 10, numbers[:-1] + 20, {}, done, False)


def test_a_walk_follows_an_episode_over_its_chunks_and_stays_at_its_end() -> None:
    steps = Transitions()
    first = steps.write(chunk(1, 2, 3), 0)
    steps.write(chunk(7, 8, done=True), 1)
    last = steps.write(chunk(3, 4, done=True), 0, tail=int(first[-1]))
    path = steps.walk(first[:1], 4)[:, 0]
    assert steps.observations[path].tolist() == [1, 2, 3, 4, 4]
    assert steps.rewards[path].tolist() == [21, 22, 23, 0, 0]
    assert steps.terminateds[path].tolist() == [False, False, True, False, False]
    assert last[0] == first[-1]


def test_rows_are_used_again() -> None:
    steps = Transitions()
    gone = steps.write(chunk(1, 2, 3), 0)
    steps.release(gone)
    assert sorted(steps.write(chunk(4, 5, 6), 1)) == sorted(gone)


def test_arrays_grow_and_keep_what_they_hold() -> None:
    steps = Transitions()
    rows = np.concatenate([steps.write(chunk(*range(500)), n)[:-1] for n in range(6)])
    assert steps.observations[rows].tolist() == [*range(499)] * 6


def test_the_oldest_episode_leaves_and_the_rest_keeps_its_order() -> None:
    order, episode_of = Order(), np.array([0, 1, 0, 2, 1, 0, 2, 2])
    order.append(np.arange(8))
    assert order.remove(episode_of, [0], 3).tolist() == [0, 2, 5]
    assert order.all().tolist() == [1, 3, 4, 6, 7]
    assert order.at(np.array([0, 4])).tolist() == [1, 7]
    order.append(np.array([5]))
    assert order.remove(episode_of, [1], 2).tolist() == [1, 4]
    assert order.all().tolist() == [3, 6, 7, 5]


def test_an_order_finds_steps_far_from_its_beginning() -> None:
    order, episode_of = Order(), np.ones(5000, np.int64)
    episode_of[[0, 4999]] = 0
    order.append(np.arange(5000))
    assert order.remove(episode_of, [0], 2).tolist() == [0, 4999]
    assert order.all().tolist() == [*range(1, 4999)]
