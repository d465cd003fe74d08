"""Running moments: each reading counts once, however states travel."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rayprune.rllib.connectors.filters import ObservationFilter, RewardFilter
from rayprune.rllib.connectors.running_moments import Moments, Shares

BATCHES = st.lists(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=5), min_size=1, max_size=8)


@given(BATCHES)
def test_moments_added_up_are_those_of_all_readings_together(batches: list[list[float]]) -> None:
    total = Moments.none(())
    for batch in batches:
        total = total + Moments.of(np.array(batch))
    flat = np.array([x for batch in batches for x in batch])
    assert total.count == len(flat)
    np.testing.assert_allclose(total.mean, flat.mean(), atol=1e-9)
    if len(flat) > 1:
        np.testing.assert_allclose(total.variance, flat.var(), atol=1e-6)


def test_a_reading_that_is_no_number_stays_out_of_the_statistics() -> None:
    rows = np.array([[1.0, 2.0], [np.nan, 5.0], [3.0, np.inf], [3.0, 4.0]])
    moments = Moments.of(rows)
    assert (moments.count, moments.mean.tolist()) == (2, [2.0, 3.0])


@settings(max_examples=50)
@given(BATCHES, st.randoms(use_true_random=False))
def test_each_reading_counts_once_however_often_and_late_states_arrive(
    batches: list[list[float]], random: Any
) -> None:
    driver, runners, sent = Shares(()), [Shares(()) for _ in range(3)], []
    for batch in batches:
        runner = random.choice(runners)
        runner.add(np.array(batch))
        sent += [runner.get_state()] * random.randint(0, 2)
        if random.random() < 0.3:
            driver.set_state(driver.merged(random.sample(sent, len(sent) // 2)))
        if random.random() < 0.3:
            # A broadcast of what is known gets to some, who go on from it.
            driver.set_state(driver.merged([r.get_state() for r in runners]))
            random.choice(runners).set_state(driver.get_state())
    driver.set_state(driver.merged([*sent, *(r.get_state() for r in runners)]))
    flat = np.array([x for batch in batches for x in batch])
    assert driver.total.count == len(flat)
    np.testing.assert_allclose(driver.total.mean, flat.mean(), atol=1e-9)


def test_a_process_that_dies_leaves_what_it_had_sent() -> None:
    driver, one = Shares(()), Shares(())
    one.add(np.array([1.0, 3.0]))
    driver.set_state(driver.merged([one.get_state()]))
    restarted = Shares(())
    restarted.set_state(driver.get_state())
    restarted.add(np.array([5.0]))
    driver.set_state(driver.merged([restarted.get_state()]))
    assert (driver.total.count, float(driver.total.mean)) == (3, 3.0)


def test_what_is_still_under_way_when_an_epoch_ends_is_not_counted_again() -> None:
    driver, one = Shares(()), Shares(())
    one.add(np.array([1.0, 3.0]))
    late = one.get_state()
    driver.set_state(driver.merged([late]))
    driver.consolidate()
    driver.set_state(driver.merged([late]))
    assert driver.total.count == 2


def test_going_on_and_being_restored_give_the_same_bits() -> None:
    rng = np.random.default_rng(0)
    whole = Shares((3,))
    for _ in range(7):
        whole.add(rng.standard_normal((5, 3)))
    restored = Shares((3,))
    restored.set_state(whole.get_state())
    whole.consolidate()
    restored.consolidate()
    more = rng.standard_normal((4, 3))
    for shares in (whole, restored):
        shares.add(more)
    assert np.array_equal(whole.total.mean, restored.total.mean)
    assert np.array_equal(whole.total.squares, restored.total.squares)


def test_a_frozen_state_freezes_whoever_takes_it() -> None:
    driver, one = Shares(()), Shares(())
    driver.frozen = True
    one.set_state(driver.get_state())
    one.add(np.array([1.0]))
    assert one.total.count == 0


def test_observations_are_normalised_as_gymnasium_does() -> None:
    space = gym.spaces.Box(-np.inf, np.inf, (3,), np.float64)
    ours = ObservationFilter(input_observation_space=space, input_action_space=space)
    oracle = gym.wrappers.utils.RunningMeanStd(shape=(3,))
    oracle.count = 0
    rng = np.random.default_rng(0)
    for _ in range(20):
        rows = 50 + 3 * rng.standard_normal((4, 3))
        ours.shares.add(rows)
        oracle.update(rows)
    given_ = np.float32(50 + 3 * rng.standard_normal((6, 3)))
    wanted = (given_ - oracle.mean) / np.sqrt(oracle.var + 1e-8)
    np.testing.assert_allclose(ours.scaling(given_), wanted, rtol=1e-5, atol=1e-6)


def test_choices_are_left_alone_and_the_rest_is_clipped() -> None:
    space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    ours = ObservationFilter(choices=np.array([True, False]), input_observation_space=space)
    ours.shares.add(np.array([[0.0, 1.0], [1.0, 3.0]]))
    assert ours.scaling(np.array([1.0, 2.0])).tolist() == [1.0, 0.0]
    assert ours.scaling(np.array([1.0, 1e6])).tolist() == [1.0, 10.0]


class Chunk:
    """As much of an episode as counts here."""

    def __init__(self, id_: str, rewards: list[float], *, is_done: bool) -> None:
        self.id_, self._rewards, self.is_done = id_, rewards, is_done

    def get_rewards(self) -> list[float]:
        return self._rewards


def test_rewards_are_scaled_as_gymnasium_does_over_episodes_in_chunks() -> None:
    rewards = [[1.0, -2.0, 3.0, 0.5], [2.0, 2.0, -1.0]]
    oracle, held = [], 0.0
    for episode in rewards:
        held = 0.0
        for reward in episode:
            held = held * 0.9 + reward
            oracle.append(held)
    ours = RewardFilter()
    ours.watch([Chunk("a", rewards[0][:2], is_done=False)], gamma=0.9)
    ours.watch([Chunk("b", rewards[1], is_done=True)], gamma=0.9)
    ours.watch([Chunk("a", rewards[0][2:], is_done=True)], gamma=0.9)
    np.testing.assert_allclose(ours.std, np.sqrt(np.var(oracle) + 1e-8))


def test_what_is_restored_is_alone_whatever_epochs_it_and_the_processes_are_in() -> None:
    for turns, others in ((0, 0), (1, 0), (0, 1), (2, 1)):
        other = Shares(())
        other.add(np.array([5.0, 7.0]))
        driver, runner = Shares(()), Shares(())
        for _ in range(turns):
            driver.consolidate()
        for _ in range(others):
            other.consolidate()
        runner.set_state(driver.get_state())
        runner.add(np.array([1.0, 2.0, 3.0]))
        driver.set_state(driver.merged([runner.get_state()]))
        assert driver.total.count == 3
        driver.restart_from(other.get_state())
        driver.set_state(driver.merged([runner.get_state()]))
        assert (driver.total.count, float(driver.total.mean)) == (2, 6.0)
        runner.set_state(driver.get_state())
        runner.add(np.array([9.0]))
        driver.set_state(driver.merged([runner.get_state()]))
        assert (driver.total.count, float(driver.total.mean)) == (3, 7.0)
