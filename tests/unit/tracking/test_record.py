"""The record of truth: rows that survive, files that are whole or not there."""

import errno
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from rayprune.errors import StorageError
from rayprune.tracking import record
from rayprune.tracking.record import Record, prepare_out, read_rows, to_json, write_atomic


def fail_with(number):
    def fail(*_arguments, **_keywords):
        raise OSError(number, os.strerror(number))

    return fail


def names_in(directory):
    return [path.name for path in directory.iterdir()]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "results.jsonl"


def test_rows_are_lines_of_strict_json(path):
    row = {
        "env_steps": np.int64(2000),
        "return_mean": float("nan"),
        "sparsity": np.float32(0.5),
        "loss": np.float64("inf"),
        "layers": np.array([1.0, np.nan]),
        "resumed": np.bool_(True),
        "name": "café",
    }
    with Record.open(path) as rows:
        rows.append(row)
    assert json.loads(path.read_text(encoding="utf-8")) == {
        "env_steps": 2000,
        "return_mean": None,
        "sparsity": 0.5,
        "loss": None,
        "layers": [1.0, None],
        "resumed": True,
        "name": "café",
    }


def test_a_row_is_readable_while_the_record_is_open(path):
    with Record.open(path) as rows:
        rows.append({"env_steps": 1})
        assert read_rows(path) == [{"env_steps": 1}]


def test_several_rows_cost_the_disk_as_much_as_one(path, monkeypatch):
    synced = []
    monkeypatch.setattr(record, "_sync", synced.append)
    with Record.open(path) as rows:
        rows.append({"n": 1}, {"n": 2}, {"n": 3})
    assert read_rows(path) == [{"n": 1}, {"n": 2}, {"n": 3}]
    assert len(synced) == 1


def test_reopening_appends(path):
    for step in (1, 2):
        with Record.open(path) as rows:
            rows.append({"env_steps": step})
    assert [row["env_steps"] for row in read_rows(path)] == [1, 2]


@pytest.mark.parametrize("torn", ['{"env_st', '{"env_steps": 3', "\0\0\0", '"text"'])
def test_a_torn_last_line_is_dropped(path, torn):
    path.write_text('{"env_steps": 1}\n' + torn)
    assert read_rows(path) == [{"env_steps": 1}]
    with Record.open(path) as rows:
        rows.append({"env_steps": 2})
    assert path.read_text() == '{"env_steps": 1}\n{"env_steps": 2}\n'


def test_what_another_process_appends_while_a_record_is_opened_is_kept(path, monkeypatch):
    path.write_text('{"a": 1}\n')
    read = Path.read_bytes

    def slow(self):
        held = read(self)
        with self.open("ab") as file:
            file.write(b'{"a": 2}\n')
        return held

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", slow)
        Record.open(path).close()
    assert read_rows(path) == [{"a": 1}, {"a": 2}]


def test_a_whole_last_line_without_its_newline_is_kept(path):
    path.write_text('{"env_steps": 1}')
    with Record.open(path) as rows:
        rows.append({"env_steps": 2})
    assert [row["env_steps"] for row in read_rows(path)] == [1, 2]


def test_resuming_drops_the_rows_that_will_be_done_again(path):
    with Record.open(path) as rows:
        for step in (1000, 2000, 3000):
            rows.append({"env_steps": step})
    Record.open(path, keep_until=2000).close()
    assert [row["env_steps"] for row in read_rows(path)] == [1000, 2000]
    Record.open(path, keep_until=0).close()
    assert read_rows(path) == []


def test_a_damaged_line_in_the_middle_is_told(path):
    path.write_text('{"env_steps": 1}\nnonsense\n{"env_steps": 3}\n')
    with pytest.raises(StorageError, match=r"Line 2 of .* is damaged"):
        Record.open(path)
    assert "nonsense" in path.read_text()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/dev/full is Linux's")
def test_a_full_disk_is_told():
    with pytest.raises(StorageError, match="'/dev/full' is full"):
        Record.open("/dev/full").append({"env_steps": 1})


def test_a_row_cut_short_by_a_full_disk_leaves_the_others_whole(path, monkeypatch):
    real = os.write

    def half_then_full(descriptor, content):
        if len(content) < 10:
            raise OSError(errno.ENOSPC, "full")
        return real(descriptor, content[: len(content) // 2])

    with Record.open(path) as rows:
        rows.append({"env_steps": 1})
        monkeypatch.setattr(os, "write", half_then_full)
        with pytest.raises(StorageError, match="is full"):
            rows.append({"env_steps": 2}, {"env_steps": 2, "name": "x" * 10})
        monkeypatch.undo()
        rows.append({"env_steps": 3})
    assert [row["env_steps"] for row in read_rows(path)] == [1, 3]


def test_closing_twice_is_harmless(path):
    rows = Record.open(path)
    rows.close()
    rows.close()
    assert path.exists()


def test_write_atomic_replaces_and_leaves_nothing_beside(tmp_path):
    target = tmp_path / "summary.json"
    write_atomic(target, "old")
    write_atomic(target, b"new")
    assert target.read_bytes() == b"new"
    assert names_in(tmp_path) == ["summary.json"]


@pytest.mark.parametrize(
    ("number", "part"),
    [
        (errno.ENOSPC, "is full"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permissions"),
        (errno.EIO, "can't be written"),
    ],
)
def test_a_failed_write_keeps_the_old_file_and_names_the_way_out(
    tmp_path, monkeypatch, number, part
):
    target = tmp_path / "summary.json"
    write_atomic(target, "old")
    monkeypatch.setattr(os, "fsync", fail_with(number))
    with pytest.raises(StorageError, match=part) as caught:
        write_atomic(target, "new")
    assert "summary.json" in str(caught.value)
    assert "--out" in str(caught.value)
    assert target.read_text() == "old"
    assert names_in(tmp_path) == ["summary.json"]


def test_a_new_directory_is_made_for_a_run(tmp_path):
    out = tmp_path / "runs" / "one"
    prepare_out(out, resume=False)
    assert names_in(out) == []


def test_a_directory_that_holds_something_needs_resume(tmp_path):
    (tmp_path / "config.yaml").write_text("name: one\n")
    with pytest.raises(StorageError, match=r"is not empty: .* go on with its run by --resume"):
        prepare_out(tmp_path, resume=False)
    prepare_out(tmp_path, resume=True)
    assert names_in(tmp_path) == ["config.yaml"]


@pytest.mark.parametrize("name", ["missing", "."])
def test_resuming_needs_a_run(tmp_path, name):
    with pytest.raises(StorageError, match="holds no run to resume"):
        prepare_out(tmp_path / name, resume=True)
    assert names_in(tmp_path) == []


def test_a_file_is_no_directory(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="is a file"):
        prepare_out(tmp_path / "file", resume=False)
    with pytest.raises(StorageError, match="Not a directory"):
        prepare_out(tmp_path / "file" / "below", resume=False)


def test_a_read_only_directory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "open", fail_with(errno.EROFS))
    with pytest.raises(StorageError, match="read-only"):
        prepare_out(tmp_path, resume=False)


def test_a_nearly_full_disk_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "LEAST_FREE_BYTES", 2**80)
    with pytest.raises(StorageError, match="MiB left"):
        prepare_out(tmp_path, resume=False)


def test_values_json_does_not_know_become_text(tmp_path):
    assert json.loads(to_json({"path": tmp_path, 3: {1}})) == {"path": str(tmp_path), "3": [1]}


def test_a_run_is_refused_where_it_would_be_lost(tmp_path, monkeypatch):
    for out in ("s3://bucket/x", Path("gs://bucket/x"), Path("s3:/bucket")):
        with pytest.raises(StorageError, match="this command writes to paths only"):
            prepare_out(out, resume=False)
    unpacked = tmp_path / "working_dir_files" / "_ray_pkg_1"
    unpacked.mkdir(parents=True)
    monkeypatch.chdir(unpacked)
    with pytest.raises(StorageError, match="goes with the job"):
        prepare_out("runs/x", resume=False)
    assert list(unpacked.iterdir()) == []


def test_what_a_process_leaves_that_was_killed_at_its_first_file_is_in_nobody_s_way(tmp_path):
    for name in (".rayprune.lock", ".probe.77", ".sweep.yaml.77.tmp"):
        (tmp_path / name).write_text("{}")
    prepare_out(tmp_path, resume=False)
    (tmp_path / "results.jsonl").write_text("")
    with pytest.raises(StorageError, match="is not empty"):
        prepare_out(tmp_path, resume=False)
