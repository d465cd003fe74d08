"""A run's directory lands in a bucket, commit by commit, and readers get what they need of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rayprune.errors import StorageError
from rayprune.storage import copies
from rayprune.storage.copies import commit, fetched, mirrored, shown
from tests.doubles.buckets import BUCKET, Store

pytestmark = pytest.mark.timeout(120)


def everything(paths, copy):
    return set(paths)


def run(out, told=print, resume=False, **options):
    return mirrored(out, resume=resume, marker="config.yaml", tell=told, **options)


def put(home: Path, **content: str) -> None:
    for name, text in content.items():
        path = home / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_a_path_is_worked_in_itself(tmp_path):
    with run(tmp_path) as home:
        assert home == tmp_path
        commit(home)
    assert list(tmp_path.iterdir()) == []
    assert shown(home / "x") == str(tmp_path / "x")
    assert fetched(home, everything) == home


def test_a_run_lands_in_the_bucket_and_leaves_nothing_here(bucket):
    with run(bucket.url("a/run")) as home:
        put(home, config="c", checkpoints__1__w="1")
        assert bucket.tree("a/run") == {}
        commit(home / "checkpoints")
        assert bucket.tree("a/run") == {"config": b"c", "checkpoints/1/w": b"1"}
        put(home, summary="s")
        assert home.name == "run"
        assert shown(home / "checkpoints" / "1") == bucket.url("a/run/checkpoints/1")
    assert bucket.tree("a/run") == {"config": b"c", "checkpoints/1/w": b"1", "summary": b"s"}
    assert not home.parent.exists()
    assert shown(home) == bucket.url("a/run")


def test_a_run_goes_on_with_nothing_here(bucket):
    with run(bucket.url("run")) as home:
        put(home, **{"config.yaml": "c", "rows": "1 2 3", "checkpoints__1__w": "1"})
    with run(bucket.url("run"), resume=True) as home:
        assert (home / "rows").read_text() == "1 2 3"
        assert (home / "checkpoints" / "1" / "w").read_text() == "1"
        put(home, rows="1 2")
        commit(home)
        assert bucket.tree("run")["rows"] == b"1 2"


def test_the_place_of_a_run_must_be_empty_or_hold_one(bucket):
    with pytest.raises(StorageError, match=r"'s3://bucket/run' holds no run to resume \(no config"):
        run(bucket.url("run"), resume=True).__enter__()
    bucket.client.put_object(Bucket=BUCKET, Key="run/notes", Body=b"mine")
    with pytest.raises(StorageError, match=r"'s3://bucket/run' is not empty.*--resume"):
        run(bucket.url("run")).__enter__()
    assert bucket.tree("run") == {"notes": b"mine"}


@pytest.mark.parametrize("url", ["s3://nowhere/run", "s4://bucket/run"])
def test_a_place_that_can_not_be_used_is_told_before_anything_is_done(bucket, url):
    with pytest.raises(StorageError, match=url):
        run(url).__enter__()


def test_credentials_that_may_not_write_are_told_before_anything_is_done(bucket):
    bucket.gate.denies = True
    with pytest.raises(StorageError, match=r"'s3://bucket/run'.*denied. Set AWS_ACCESS_KEY_ID"):
        run(bucket.url("run")).__enter__()


def test_what_fails_to_go_up_goes_with_the_next_commit(bucket, monkeypatch):
    told: list[str] = []
    with run(bucket.url("run"), told.append) as home:
        put(home, rows="1")
        bucket.lose()
        commit(home)
        assert len(told) == 1
        assert "'s3://bucket/run' can't be used. There is no such bucket" in told[0]
        assert "tries again" in told[0]
        bucket.client.create_bucket(Bucket=BUCKET)
        put(home, more="2")
        commit(home)
        assert bucket.tree("run") == {"rows": b"1", "more": b"2"}


def test_what_can_not_go_up_at_the_end_stays_here_and_is_named(bucket, monkeypatch):
    monkeypatch.setattr(copies, "LAST_TRIES", 1)
    held = run(bucket.url("run"))
    home = held.__enter__()
    put(home, rows="1")
    bucket.lose()
    with pytest.raises(StorageError) as caught:
        held.__exit__(None, None, None)
    bucket.client.create_bucket(Bucket=BUCKET)
    assert str(home) in str(caught.value)
    assert (home / "rows").read_text() == "1"


def test_what_a_failed_run_has_written_goes_up_and_its_own_error_is_told(bucket):
    def fail() -> None:
        with run(bucket.url("run")) as home:
            put(home, rows="1")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert bucket.tree("run") == {"rows": b"1"}


def test_a_reader_gets_what_it_wants_and_the_same_copy_again(bucket):
    for key in ("index", "a", "b"):
        bucket.client.put_object(Bucket=BUCKET, Key=f"run/{key}", Body=b"a")

    def named_in_index(paths, copy):
        index = copy / "index"
        return {"index"} | ({index.read_text()} if index.exists() else set())

    copy = fetched(Path(bucket.url("run")), named_in_index)
    assert sorted(path.name for path in copy.iterdir()) == ["a", "index"]
    assert fetched(bucket.url("run"), named_in_index) == copy
    bucket.client.put_object(Bucket=BUCKET, Key="run/b", Body=b"new")
    assert fetched(bucket.url("run"), named_in_index) != copy
    assert fetched(bucket.url("run"), everything) != copy
    assert shown(copy / "a") == bucket.url("run/a")


def test_a_reader_of_what_is_being_written_here_reads_it_here(bucket):
    with run(bucket.url("run")) as home:
        put(home, dense__checkpoints__1__w="1")
        assert fetched(bucket.url("run/dense"), everything) == home / "dense"


def test_nothing_and_no_bucket_are_told_apart(bucket):
    with pytest.raises(StorageError, match="There is nothing at 's3://bucket/run'"):
        fetched(bucket.url("run"), everything)
    with pytest.raises(StorageError, match="no such bucket"):
        fetched("s3://nowhere/run", everything)


def test_a_reader_begins_anew_where_the_writer_goes_on_meanwhile(bucket):
    for key in ("rows", "checkpoints/1/w"):
        bucket.client.put_object(Bucket=BUCKET, Key=f"race/{key}", Body=b"1")
    calls = []

    def while_writing(paths, copy):
        if not calls:
            bucket.client.delete_object(Bucket=BUCKET, Key="race/checkpoints/1/w")
            bucket.client.put_object(Bucket=BUCKET, Key="race/checkpoints/2/w", Body=b"2")
        calls.append(sorted(paths))
        return set(paths)

    copy = fetched(bucket.url("race"), while_writing)
    assert calls[0] == ["checkpoints/1/w", "rows"]
    assert (copy / "checkpoints" / "2" / "w").read_text() == "2"
    assert not (copy / "checkpoints" / "1").exists()


WRITER = """
import sys
from pathlib import Path
from rayprune.storage.copies import commit, mirrored

with mirrored(sys.argv[1], resume=False, marker="config.yaml", tell=print) as home:
    (home / "config.yaml").write_text("c")
    for n in range(1, 4):
        (home / "rows").write_text(" ".join(map(str, range(n + 1))))
        (home / "checkpoints" / str(n)).mkdir(parents=True)
        for name in "ab":
            (home / "checkpoints" / str(n) / name).write_text(f"{n}{name}" * 1000)
        old = home / "checkpoints" / str(n - 1)
        for path in list(old.glob("*")):
            path.unlink()
        commit(home)
        print(n, flush=True)
"""


def state(number: int) -> dict[str, bytes]:
    files = {f"checkpoints/{number}/{name}": f"{number}{name}".encode() * 1000 for name in "ab"}
    rows = " ".join(map(str, range(number + 1))).encode()
    return {"config.yaml": b"c", "rows": rows, **files} if number else {}


FIRST_COMMIT = 9
"""Three requests try the place, four files go up, and the eighth request names them."""


@pytest.mark.parametrize("request_number", [4, 8, 9, 13, 15, 21, 22, 26, 28, 30])
def test_a_process_killed_within_a_request_loses_nothing(
    bucket: Store, request_number: int, tmp_path: Path
) -> None:
    bucket.gate.close_at(request_number)
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, bucket.url("run")], stdout=subprocess.PIPE, env=environment
    )
    assert bucket.gate.reached.wait(60)
    process.send_signal(signal.SIGKILL)
    done = len(process.communicate()[0].splitlines())
    bucket.gate.open()

    possible = [state(done), state(done + 1)]
    if request_number < FIRST_COMMIT:
        with run(bucket.url("run")) as home:  # as if nothing had been tried
            put(home, rows="anew")
        assert bucket.tree("run") == {"rows": b"anew"}
        return
    copy = fetched(bucket.url("run"), everything)
    seen = {
        path.relative_to(copy).as_posix(): path.read_bytes()
        for path in copy.rglob("*")
        if path.is_file()
    }
    assert seen in possible
    with run(bucket.url("run"), resume=True) as home:
        assert bucket.tree("run") == seen
        put(home, rows="on")
    assert bucket.tree("run") == {**seen, "rows": b"on"}
