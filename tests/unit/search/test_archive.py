from pathlib import Path

import pytest

from rayprune.search.archive import SIZE, Archive, copy_tree
from rayprune.search.objectives import Objectives

SPREAD = Objectives(directions={"return": "max", "sparsity": "max"})


@pytest.fixture
def home(tmp_path):
    (tmp_path / "home" / "checkpoints").mkdir(parents=True)
    return tmp_path / "home"


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "tune" / "checkpoint" / "inner"
    path.mkdir(parents=True)
    (path / "weights").write_text("w")
    return path.parent


def point(value, sparsity):
    return {"return": value, "sparsity": sparsity}


def held(home):
    return sorted(path.name for path in (home / "checkpoints").iterdir())


def test_only_the_trials_own_front_is_kept(home, checkpoint):
    archive = Archive(home, SPREAD)
    archive.offer(point(10.0, 0.5), 1, checkpoint)
    archive.offer(point(9.0, 0.4), 2, checkpoint)  # beaten: never copied
    assert held(home) == ["000000001"]
    archive.offer(point(8.0, 0.9), 3, checkpoint)
    assert held(home) == ["000000001", "000000003"]
    archive.offer(point(11.0, 0.6), 4, checkpoint)  # beats the first
    assert held(home) == ["000000003", "000000004"]
    assert (home / "checkpoints/000000004/inner/weights").read_text() == "w"
    assert [entry["rows"] for entry in Archive(home, SPREAD).entries] == [3, 4]


def test_of_equal_points_the_last_is_kept(home, checkpoint):
    archive = Archive(home, SPREAD)
    for rows in (1, 2, 3):
        archive.offer(point(10.0, 0.5), rows, checkpoint)
    assert held(home) == ["000000003"]


def test_a_front_of_many_keeps_its_ends_and_a_few_between(home, checkpoint):
    archive = Archive(home, SPREAD)
    for rows in range(1, 30):
        archive.offer(point(30.0 - rows, 0.03 * rows), rows, checkpoint)
    rows = [entry["rows"] for entry in archive.entries]
    assert len(rows) == SIZE
    assert {1, 29} <= set(rows)
    assert len(held(home)) == SIZE


def test_going_back_forgets_what_will_be_done_again(home, checkpoint):
    archive = Archive(home, SPREAD)
    for rows in (2, 4, 6):
        archive.offer(point(10.0 - rows, 0.1 * rows), rows, checkpoint)
    archive.go_back_to(4)
    assert [entry["rows"] for entry in archive.entries] == [2, 4]
    assert held(home) == ["000000002", "000000004"]


def test_under_a_constraint_the_return_is_spread_too(home, checkpoint):
    lean = Objectives.from_dict(
        {"sparsity": "max", "subject_to": {"return_at_least": 0.9, "dense_return": 100.0}}
    )
    archive = Archive(home, lean)
    archive.offer(point(95.0, 0.5), 1, checkpoint)
    archive.offer(point(20.0, 0.9), 2, checkpoint)
    assert [entry["rows"] for entry in archive.entries] == [1, 2]


def test_a_copy_outlives_its_source_and_is_whole_or_absent(checkpoint, tmp_path, monkeypatch):
    target = tmp_path / "copy"
    copy_tree(checkpoint, target)
    (checkpoint / "inner" / "weights").unlink()
    assert (target / "inner" / "weights").read_text() == "w"

    def refuses(source, link):
        raise OSError("no links here")

    monkeypatch.setattr("os.link", refuses)
    copy_tree(target, tmp_path / "second")
    assert (tmp_path / "second" / "inner" / "weights").read_text() == "w"
    assert not list(Path(tmp_path).glob(".*.tmp"))
