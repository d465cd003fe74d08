"""Tune's files of an experiment after a driver was killed at the worst of times."""

import json
import pickle

import pytest

from rayprune.search.tune.tune_state import KEPT_DIRECTORY, TUNER_FILE, StateKeeper, can_restore

STATE, SEARCHER = "experiment_state-2026-01-02.json", "basic-variant-state-2026-01-02.json"


def keeper_of(held):
    return StateKeeper(held / KEPT_DIRECTORY)


@pytest.fixture
def held(tmp_path):
    (tmp_path / TUNER_FILE).write_bytes(pickle.dumps({"a": 1}))
    (tmp_path / STATE).write_text(json.dumps({"trials": 4}))
    (tmp_path / SEARCHER).write_bytes(pickle.dumps([1]))
    return tmp_path


def test_an_experiment_that_is_whole_is_left_as_it_is(held):
    before = {path.name: path.read_bytes() for path in held.iterdir()}
    assert can_restore(held, held / KEPT_DIRECTORY)
    assert {path.name: path.read_bytes() for path in held.iterdir()} == before


@pytest.mark.parametrize("name", [STATE, SEARCHER])
def test_half_a_state_is_replaced_by_the_last_whole_one(held, name):
    whole = (held / name).read_bytes()
    keeper_of(held).keep(held)
    (held / name).write_bytes(whole[: len(whole) // 2])
    keeper_of(held).keep(held)  # which doesn't take half a file for a whole one
    assert can_restore(held, held / KEPT_DIRECTORY)
    assert (held / name).read_bytes() == whole


def test_an_older_whole_state_does_not_replace_a_newer_one(held):
    keeper_of(held).keep(held)
    (held / STATE).write_text(json.dumps({"trials": 5}))
    assert can_restore(held, held / KEPT_DIRECTORY)
    assert json.loads((held / STATE).read_text()) == {"trials": 5}


def test_a_resumed_driver_that_is_killed_at_once_leaves_its_forerunners_state(held):
    keeper_of(held).keep(held)
    (held / STATE.replace("01-02", "01-03")).write_text('{"trials": ')
    assert can_restore(held, held / KEPT_DIRECTORY)
    assert [path.name for path in held.glob("experiment_state-*")] == [STATE]


def test_only_the_newest_is_kept_and_only_when_it_changed(held):
    keeper = keeper_of(held)
    keeper.keep(held)
    newer = held / STATE.replace("01-02", "01-03")
    newer.write_text(json.dumps({"trials": 6}))
    keeper.keep(held)
    kept = held / KEPT_DIRECTORY
    assert [path.name for path in kept.glob("experiment_state-*")] == [STATE]  # a moment ago
    keeper_of(held).keep(held)
    assert [path.name for path in kept.glob("experiment_state-*")] == [newer.name]


@pytest.mark.parametrize("name", [TUNER_FILE, STATE, SEARCHER])
def test_without_a_whole_file_of_each_kind_there_is_nothing_to_go_on_with(held, name):
    (held / name).write_bytes(b"")
    assert not can_restore(held, held / KEPT_DIRECTORY)
    (held / name).unlink(missing_ok=True)
    assert not can_restore(held, held / KEPT_DIRECTORY)


def test_without_a_directory_there_is_nothing_either(tmp_path):
    assert not can_restore(tmp_path / "tune", tmp_path / "kept")


def test_another_searcher_is_kept_and_restored_with_its_generator(held):
    (held / SEARCHER).unlink()
    assert not can_restore(held, held / KEPT_DIRECTORY)
    both = [held / "search_gen_state-1.json", held / "searcher-state-1.pkl"]
    for path in both:
        path.write_bytes(pickle.dumps({"counter": 3}))
    keeper_of(held).keep(held)
    both[1].write_bytes(b"half")
    assert can_restore(held, held / KEPT_DIRECTORY)
    assert pickle.loads(both[1].read_bytes()) == {"counter": 3}
