"""A Learner's features are called in order, each for the events that it overrides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import rayprune.rllib.learner as room
from rayprune.rllib.learner.extension import Extension, Extensions
from rayprune.rllib.learner.extensions.cut_off import CutOff
from rayprune.rllib.learner.extensions.held_deviation import HeldDeviation
from rayprune.rllib.learner.extensions.live_compaction import LiveCompaction
from rayprune.rllib.learner.extensions.rewinding import Rewinding
from rayprune.rllib.learner.mixin import EXTENSIONS

NO_LEARNER: Any = None
NO_EVENTS = {"get_state", "set_state"}
EVENTS = sorted(
    n for n in vars(Extension) if not n.startswith("_") and n not in {*NO_EVENTS, "key"}
)

# All other neighbours may swap: at no event does one read or write what the other does.
MAY_NOT_SWAP = {
    (Rewinding, HeldDeviation): "what is held is noted once early weights are back",
    (LiveCompaction, CutOff): "a network that has shrunk is run as it is now, once, after that",
}


class Recorder(Extension):
    def __init__(self, view: Any) -> None:
        super().__init__(view)
        self.heard: list[str] = []


class First(Recorder):
    key = "first"

    def detach(self, module_id: str) -> None:
        self.heard.append(module_id)

    def get_state(self) -> Any:
        return list(self.heard)

    def set_state(self, state: Any) -> None:
        self.heard = list(state or [])


class Second(First):
    key = ""

    def after_step(self) -> None:
        self.heard.append("step")


def test_an_event_calls_those_that_override_it_in_order() -> None:
    extensions = Extensions([Second, Recorder, First], NO_LEARNER)
    first, second = extensions.of(First), extensions.of(Second)
    assert extensions.detach == [second.detach, first.detach]
    assert extensions.after_step == [second.after_step]
    assert extensions.on_batch == []


def test_states_lie_under_keys_and_one_that_is_missing_is_none() -> None:
    extensions = Extensions([First, Second], NO_LEARNER)
    extensions.of(First).detach("a")
    assert extensions.get_state() == {"first": ["a"]}
    extensions.set_state({"first": ["b"], "of another version": 1})
    assert extensions.get_state() == {"first": ["b"]}
    extensions.set_state({})
    assert extensions.get_state() == {"first": []}


@pytest.mark.parametrize("event", EVENTS)
def test_an_event_has_a_list_and_is_heard_by_someone(event: str) -> None:
    assert event in vars(Extensions([], NO_LEARNER))
    assert any(getattr(kind, event) is not getattr(Extension, event) for kind in EXTENSIONS)


@pytest.mark.parametrize("pair", MAY_NOT_SWAP, ids=lambda pair: MAY_NOT_SWAP[pair])
def test_those_that_may_not_swap_stand_in_order(pair: tuple[type, type]) -> None:
    before, after = map(EXTENSIONS.index, pair)
    assert before < after


def test_no_two_features_keep_their_state_under_one_key() -> None:
    keys = [kind.key for kind in EXTENSIONS if kind.key]
    assert sorted(keys) == sorted(set(keys))
    assert {"competing_networks", "lr_schedulers", "rewinding", "signals", "teachers"} < set(keys)


def test_learners_meet_at_one_door() -> None:
    files = Path(room.__file__).parent.rglob("*.py")
    doors = {file.name for file in files if "distributed" in file.read_text().replace("`", " ")}
    assert doors == {"ranks.py"}
