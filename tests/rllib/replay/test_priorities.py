"""Trees of priorities against RLlib's segment trees."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.rllib.execution.segment_tree import MinSegmentTree, SumSegmentTree

from rayprune.rllib.replay.priorities import PriorityTrees

LEAVES = 16384

PRIORITIES = st.one_of(
    st.sampled_from([1.0, 1e-12**0.6, 0.3]),
    st.floats(1e-6, 4.0),
    st.floats(np.float32(1e-6).item(), 4.0, width=32).map(np.float32),
)


class Both:
    """Our trees and RLlib's, set alike."""

    def __init__(self, leaves: int = LEAVES) -> None:
        self.ours = PriorityTrees(leaves)
        self.sums, self.minima = SumSegmentTree(leaves), MinSegmentTree(leaves)

    def set(self, leaves: list[int], values: list[Any]) -> None:
        self.ours.set(leaves, values)
        for leaf, value in zip(leaves, values, strict=True):
            self.sums[leaf], self.minima[leaf] = value, value

    def clear(self, leaves: list[int]) -> None:
        self.ours.clear(leaves)
        for leaf in leaves:
            self.sums[leaf], self.minima[leaf] = 0.0, float("inf")

    def check(self) -> None:
        for ours, theirs in (
            (self.ours.total, self.sums.sum()),
            (self.ours.lowest / self.ours.total, self.minima.min() / self.sums.sum()),
        ):
            assert type(ours) is type(theirs)
            assert ours == theirs
        draws = np.random.default_rng(0).random(20)
        found = [self.sums.find_prefixsum_idx(draw * self.sums.sum()) for draw in draws.tolist()]
        assert self.ours.find(draws).tolist() == found
        for ours, theirs in zip(self.ours.at(np.array(found)), found, strict=True):
            assert ours / self.ours.total == self.sums[theirs] / self.sums.sum()


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_sums_and_draws_are_those_of_segment_trees(data: st.DataObject) -> None:
    both, at = Both(), st.integers(0, 300)
    both.set([0], [1.0])
    for _ in range(4):
        leaves = data.draw(st.lists(at, min_size=1, max_size=30))
        both.set(
            leaves, data.draw(st.lists(PRIORITIES, min_size=len(leaves), max_size=len(leaves)))
        )
        both.check()
        both.clear([leaf for leaf in data.draw(st.lists(at, max_size=8)) if leaf])
        both.check()


def test_three_priorities_by_hand() -> None:
    trees = PriorityTrees(4)
    trees.set([0, 1, 3], [1.0, 2.0, 5.0])
    assert (trees.total, trees.lowest) == (8.0, 1.0)
    assert trees.find(np.array([0.0, 0.124, 0.125, 0.374, 0.375, 0.99])).tolist() == [
        0,
        0,
        1,
        1,
        3,
        3,
    ]


def test_a_sum_is_single_as_soon_as_a_td_error_is_in_it_and_until_it_is_gone() -> None:
    trees = PriorityTrees(4)
    trees.set([0], [1.0])
    assert type(trees.total) is float
    trees.set([1], [np.float32(0.1)])
    assert type(trees.total) is np.float32
    trees.clear([1])
    assert type(trees.total) is float


def test_a_draw_that_rounds_to_the_total_finds_the_last_transition() -> None:
    """RLlib's tree gives a leaf without one there, and its buffer raises KeyError."""
    trees = PriorityTrees(1024)
    trees.set(list(range(500)), [np.float32(1.0)] * 500)
    assert trees.find(np.array([1.0 - 2.0**-40])).tolist() == [499]


def test_lists_are_rllibs_and_are_taken_over() -> None:
    both = Both(256)
    both.set(list(range(40)), [np.float32(0.5) if n % 3 else 1.0 for n in range(40)])
    both.clear([3, 4])
    for ours, theirs in (
        (both.ours.sums_as_list(), both.sums.value),
        (both.ours.minima_as_list(), both.minima.value),
    ):
        assert [(type(value), value) for value in ours] == [(type(v), v) for v in theirs]
    both.ours = PriorityTrees(256)
    both.ours.take_over(both.sums.value, both.minima.value)
    both.check()
    both.ours = pickle.loads(pickle.dumps(both.ours))
    both.set([5], [np.float32(2.0)])
    both.check()


def test_what_is_no_number_is_refused() -> None:
    trees, sums, minima = PriorityTrees(4), SumSegmentTree(4), MinSegmentTree(4)
    sums[0], minima[0] = np.float64(1.0), np.float64(1.0)
    with pytest.raises(TypeError, match="no Python number"):
        trees.take_over(sums.value, minima.value)
    for nan in (float("nan"), np.float32("nan")):
        trees.set([0], [nan])
        with pytest.raises(AssertionError, match="numbers"):
            trees.find(np.array([0.5]))
