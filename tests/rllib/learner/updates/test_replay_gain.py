"""Replays are left out where seeing to them takes longer than they save."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from rayprune.rllib.learner.updates.replay_gain import MEASURED, PAUSE, ReplayGain
from tests.rllib.learner.updates import twins
from tests.rllib.learner.updates.test_updates import EPOCHS, ppo

Rounds = Callable[..., ReplayGain]


@pytest.fixture
def after_rounds(monkeypatch: pytest.MonkeyPatch) -> Rounds:
    """Return a maker of gains that have seen some rounds by a clock of the test's own."""
    now = 0.0
    monkeypatch.setattr(time, "thread_time", lambda: now)

    def make(*, computing: float, replaying: float, replays: int) -> ReplayGain:
        nonlocal now
        gain = ReplayGain()
        for _ in range(MEASURED):
            with gain.computing():
                now += computing
            with gain.comparing():
                now += replaying
            for _ in range(replays):
                gain.count_replay()
            gain.begin_round()
        return gain

    return make


def test_replays_that_save_less_than_they_cost_pause(after_rounds: Rounds) -> None:
    assert after_rounds(computing=0.100, replaying=0.099, replays=98).pauses


def test_replays_that_save_more_go_on(after_rounds: Rounds) -> None:
    assert not after_rounds(computing=0.100, replaying=0.099, replays=100).pauses


def test_what_others_do_meanwhile_does_not_count() -> None:
    gain = ReplayGain()
    for _ in range(MEASURED):
        with gain.computing():
            sum(range(10**5))
        with gain.comparing():
            time.sleep(0.05)
        gain.count_replay()
        gain.begin_round()
    assert not gain.pauses


def test_after_a_pause_it_is_measured_anew(after_rounds: Rounds) -> None:
    gain = after_rounds(computing=0.100, replaying=0.099, replays=1)
    for left in range(PAUSE, 0, -1):
        assert gain.pauses, f"{left} rounds are left"
        gain.begin_round()
    assert not gain.pauses
    gain.begin_round()
    assert not gain.pauses, "judged by what was measured before"


def test_a_pause_changes_nothing_that_is_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ReplayGain, "pauses", True)
    first, second = twins.twins(ppo(), plasticity=None)
    made = twins.ppo_batch(first, 80)
    expected, found = (
        twins.after_updates(own, lambda: iter([made]), **EPOCHS) for own in (first, second)
    )
    assert twins.differences(expected, found) == []
    assert second._replays._recorded is None
