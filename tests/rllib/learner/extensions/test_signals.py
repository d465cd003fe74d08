"""What a driver posts is in force from the next update on, the same on every rank."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from rayprune import PruningConfig
from rayprune.rllib.learner.extensions.signals import Signals, listens

NO_LEARNER: Any = None
SIGNALS = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "began": st.integers(0, 9),
            "level": st.floats(0, 0.9),
            "criterion": st.sampled_from(["l1", "l2"]),
        },
    ),
    max_size=6,
)


def box(posts: list[dict[str, Any]]) -> Signals:
    made = Signals(NO_LEARNER)
    for signals in posts:
        made.post(signals)
    return made


def test_what_has_begun_stays_begun_and_the_last_level_counts() -> None:
    held = box([{"began": 5}, {"level": 0.2}, {"began": 7, "level": 0.4, "criterion": "l2"}])
    held.take(held.posted)
    assert held.now == {"began": 5, "level": 0.4, "criterion": "l2"}
    pruning = {"criterion": "l1", "schedule": {"kind": "gated", "step": 0.5}}
    assert held.applied(pruning) == {
        "criterion": "l2",
        "schedule": {"kind": "gated", "step": 0.5, "began": 5, "level": 0.4},
    }
    assert pruning["criterion"] == "l1"


@given(SIGNALS, SIGNALS, st.integers(0, 12))
def test_ranks_that_take_as_many_posts_hold_the_same(
    early: list[dict[str, Any]], late: list[dict[str, Any]], first: int
) -> None:
    # One rank has got everything, the other only the early posts: both take what both have.
    ahead, behind = box([*early, *late]), box(early)
    for rank in (ahead, behind):
        rank.take(min(first, len(early)))
    agreed = min(ahead.posted, behind.posted)
    for rank in (ahead, behind):
        rank.take(agreed)
    assert ahead.now == behind.now
    for signals in late:
        behind.post(signals)
    for rank in (ahead, behind):
        rank.take(rank.posted)
    assert ahead.now == behind.now
    assert ahead.posted == behind.posted


@given(SIGNALS, st.integers(0, 6))
def test_a_state_holds_what_is_posted_and_not_yet_taken(
    posts: list[dict[str, Any]], taken: int
) -> None:
    whole, cut = box(posts), box(posts)
    cut.take(taken)
    again = Signals(NO_LEARNER)
    again.set_state(cut.get_state())
    whole.take(whole.posted)
    assert again.now == whole.now


def test_only_schedules_that_wait_listen() -> None:
    assert listens(PruningConfig(schedule={"kind": "gated"}))
    assert listens(PruningConfig(sparsity=0.5, schedule={"begin": {"return": 3}}))
    assert not listens(PruningConfig(sparsity=0.5))
