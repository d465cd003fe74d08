"""Timing by turns: medians, tails and ratios by hand, and a control that is the first arm."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayprune.deploy.measure.latency import CONTROL, Timings, speed_up, time_arms
from rayprune.errors import InputError


class World:
    """A clock that arms move."""

    def __init__(self):
        self.now, self.called = 0.0, []

    def clock(self):
        return self.now

    def arm(self, name, seconds):
        def call():
            self.called.append(name)
            self.now += seconds

        return call


def test_the_figures_of_calls_by_hand():
    timings = Timings((np.array([1.0, 2.0, 3.0]) * 1e-6, np.array([3.0, 4.0, 100.0]) * 1e-6))
    summary = timings.summary(deadline=3.5e-6)
    assert timings.medians.tolist() == pytest.approx([2e-6, 4e-6])
    assert summary["median_us"] == pytest.approx(3.0)
    assert summary["p99_us"] == pytest.approx(np.quantile([1, 2, 3, 3, 4, 100], 0.99))
    assert (summary["calls"], summary["missed"]) == (6, pytest.approx(2 / 6))
    assert timings.summary()["missed"] is None


def test_each_arm_takes_what_it_takes_whatever_runs_between():
    world = World()
    found = time_arms(
        {"slow": world.arm("slow", 8e-4), "fast": world.arm("fast", 1e-4)},
        rounds=4,
        clock=world.clock,
    )
    assert set(found) == {"slow", "fast", CONTROL}
    assert found["slow"].summary()["median_us"] == pytest.approx(800)
    assert speed_up(found["slow"], found["fast"])["ratio"] == pytest.approx(8.0)
    assert speed_up(found["slow"], found[CONTROL])["ratio"] == pytest.approx(1.0)
    assert [len(timings.blocks) for timings in found.values()] == [4, 4, 4]


def test_arms_take_turns_in_every_round():
    world = World()
    time_arms(
        {name: world.arm(name, 1e-3) for name in "abc"}, rounds=6, block_s=1e-9, clock=world.clock
    )
    turns = [name for n, name in enumerate(world.called) if n == 0 or world.called[n - 1] != name]
    assert all(turns.count(name) > 4 for name in "abc")


def test_a_slow_arm_still_has_five_calls_a_block_and_a_fast_one_no_more_than_200():
    world = World()
    found = time_arms(
        {"slow": world.arm("slow", 1.0), "fast": world.arm("fast", 1e-9)},
        rounds=1,
        clock=world.clock,
    )
    assert len(found["slow"].blocks[0]) == 5
    assert len(found["fast"].blocks[0]) == 200


@given(st.lists(st.floats(1e-6, 1e-2), min_size=2, max_size=20), st.floats(0.1, 10.0))
def test_noise_that_all_arms_meet_alike_leaves_ratios_as_they_are(noise, ratio):
    slow = Timings(tuple(np.array([x * ratio]) for x in noise))
    fast = Timings(tuple(np.array([x]) for x in noise))
    found = speed_up(slow, fast)
    assert [found["ratio"], *found["ci95"]] == pytest.approx([ratio] * 3)


@pytest.mark.parametrize("arms", [{}, {CONTROL: lambda: None}])
def test_there_has_to_be_an_arm_that_is_not_named_as_the_control(arms):
    with pytest.raises(InputError, match="arm"):
        time_arms(arms)
