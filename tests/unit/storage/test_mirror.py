"""Commits happen as a whole, wherever their writer dies."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayprune.storage.commits import PENDING, committed_files
from rayprune.storage.mirror import Mirror, whole_directories
from rayprune.storage.urls import Place
from tests.doubles.dying import Dying

A_RUN = [
    {"config.yaml": "c"},
    {"config.yaml": "c", "rows": "1 2", "checkpoints/2/meta": "m2", "checkpoints/2/in/w": "w2"},
    {
        "config.yaml": "c",
        "rows": "1 2 3 4",
        "checkpoints/2/meta": "m2",
        "checkpoints/2/in/w": "w2",
        "checkpoints/4/meta": "m4",
        "checkpoints/4/in/w": "w4",
    },
    # A checkpoint is written again under its old name, another one is dropped.
    {"config.yaml": "c", "rows": "1 2", "checkpoints/4/meta": "n4", "checkpoints/4/in/w": "x4"},
    {
        "config.yaml": "d",
        "rows": "1 2 5",
        "checkpoints/5/meta": "m5",
        "checkpoints/5/in/w": "w5",
        "summary.json": "best: 5",
    },
]
"""What a directory holds at its commits."""


def place(files) -> Place:
    return Place(url="s3://bucket/run", base=None, path="run", files=files)


def put(home: Path, content: dict[str, str]) -> None:
    """Make a directory hold this, as a run would: what stays the same isn't written again."""
    for path in [path for path in home.rglob("*") if path.is_file()]:
        if content.get(path.relative_to(home).as_posix()) != path.read_text():
            path.unlink()
    for name, text in content.items():
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_text(text)


def held(home: Path) -> dict[str, str]:
    return {
        path.relative_to(home).as_posix(): path.read_text()
        for path in home.rglob("*")
        if path.is_file()
    }


def write_until_death(store: Path, home: Path, states: list[dict[str, str]], at: int | None) -> int:
    """Commit one state after the other; return how many commits came back."""
    home.mkdir()
    dying = Dying(store, at)
    mirror = Mirror(home, place(dying.root()))
    done = 0
    try:
        mirror.fetch()
        for state in states:
            put(home, state)
            mirror.commit()
            done += 1
    except OSError:
        pass  # dead
    return done


def read(store: Path, home: Path) -> dict[str, str]:
    """Return what a reader sees, who changes nothing."""
    files = Dying(store).root()
    return {
        path: files.open_input_stream(info.path).read().decode()
        for path, info in committed_files(files).items()
    }


def check_death_at(tmp: Path, states: list[dict[str, str]], at: int) -> bool:
    """Die at a request, read, resume from an empty directory, and go on; return whether it died."""
    store = tmp / "store"
    store.mkdir(parents=True)
    done = write_until_death(store, tmp / "first", states, at)
    before = {} if done == 0 else states[done - 1]
    after = states[min(done, len(states) - 1)]
    seen = read(store, tmp)
    assert seen in (before, after)

    second = tmp / "second"
    second.mkdir()
    mirror = Mirror(second, place(Dying(store).root()))
    mirror.fetch()
    assert held(second) == seen
    assert held(store) == seen
    for state in states[states.index(seen) + 1 if seen else 0 :]:
        put(second, state)
        mirror.commit()
    assert held(store) == states[-1]
    return done < len(states)


def test_whatever_request_a_writer_dies_in_a_whole_commit_is_found_and_gone_on_from(tmp_path):
    at = 1
    while check_death_at(tmp_path / str(at), A_RUN, at):
        at += 1
    assert at > 40, "a run of five commits takes more requests than that"


names = st.sampled_from(["a", "b", "d/a", "d/b", "d/e/a", "f/a"])
trees = st.dictionaries(names, st.text("xyz", max_size=3), max_size=5)


@settings(max_examples=40, deadline=None)
@given(states=st.lists(trees, min_size=1, max_size=4), at=st.integers(1, 60))
def test_so_it_is_for_any_trees(tmp_path_factory, states, at):
    distinct = [s for n, s in enumerate(states) if s not in [{}, *states[:n]]]
    tmp = tmp_path_factory.mktemp("any")
    if distinct:
        check_death_at(tmp, distinct, at)
    shutil.rmtree(tmp)


@pytest.fixture
def store(tmp_path):
    store = tmp_path / "store"
    store.mkdir()
    return store


def mirror_of(store: Path, home: Path, **options) -> Mirror:
    home.mkdir()
    return Mirror(home, place(Dying(store).root()), **options)


def test_a_commit_that_changes_nothing_asks_for_nothing(tmp_path, store):
    dying = Dying(store)
    (tmp_path / "home").mkdir()
    mirror = Mirror(tmp_path / "home", place(dying.root()))
    put(mirror.home, A_RUN[1])
    mirror.commit()
    count = dying.count
    mirror.commit()
    assert dying.count == count > 0


def test_only_what_changed_goes_up(tmp_path, store):
    mirror = mirror_of(store, tmp_path / "home")
    put(mirror.home, A_RUN[2])
    mirror.commit()
    (store / "checkpoints/2/in/w").write_text("somebody else's")
    put(mirror.home, {**A_RUN[2], "rows": "1 2 3 4 5"})
    mirror.commit()
    assert (store / "checkpoints/2/in/w").read_text() == "somebody else's"
    assert (store / "rows").read_text() == "1 2 3 4 5"


def test_after_a_fetch_nothing_goes_up_again(tmp_path, store):
    first = mirror_of(store, tmp_path / "first")
    put(first.home, A_RUN[2])
    first.commit()
    dying = Dying(store)
    (tmp_path / "second").mkdir()
    second = Mirror(tmp_path / "second", place(dying.root()))
    second.fetch()
    count = dying.count
    second.commit()
    assert dying.count == count


def test_temporary_files_and_links_stay_here(tmp_path, store):
    mirror = mirror_of(store, tmp_path / "home")
    put(
        mirror.home,
        {"rows": "1", ".rows.12.tmp": "half", "checkpoints/.7.1.tmp/w": "half", ".probe.3": "x"},
    )
    (mirror.home / "latest").symlink_to(mirror.home / "rows")
    mirror.commit()
    assert held(store) == {"rows": "1"}


def test_what_is_somebody_elses_is_neither_fetched_nor_changed(tmp_path, store):
    put(store, {"tune/state": "theirs", "trials/1/rows": "ours"})
    mirror = mirror_of(store, tmp_path / "home", apart=["tune"])
    mirror.fetch()
    assert held(mirror.home) == {"trials/1/rows": "ours"}
    put(mirror.home, {"tune/state": "mine", "trials/1/rows": "ours, too"})
    mirror.commit()
    assert held(store) == {"tune/state": "theirs", "trials/1/rows": "ours, too"}


def test_what_others_put_there_stays(tmp_path, store):
    mirror = mirror_of(store, tmp_path / "home")
    put(mirror.home, A_RUN[2])
    mirror.commit()
    (store / "notes.txt").write_text("by hand")
    put(mirror.home, A_RUN[3])
    mirror.commit()
    assert held(store) == {**A_RUN[3], "notes.txt": "by hand"}
    assert not (store / PENDING).exists()


def test_a_directory_goes_at_once_where_nothing_of_it_is_left():
    assert whole_directories(["c/1/x", "c/1/in/y", "c/2/x", "r"], ["c/2/z"]) == [
        "c/1/",
        "c/2/x",
        "r",
    ]
    assert whole_directories(["c/1/x", "c/2/y"], []) == ["c/"]
