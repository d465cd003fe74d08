"""Tune's state in a bucket, after a driver was killed at the worst of times."""

import json
import pickle
from types import SimpleNamespace

import pytest

from rayprune.search.tune.tune_state import KEPT_DIRECTORY, TUNER_FILE, StateKeeper
from rayprune.search.tune.tune_storage import TuneStorage
from rayprune.storage.copies import commit, mirrored

STATE, SEARCHER = "experiment_state-2026-01-02.json", "basic-variant-state-2026-01-02.json"
WHOLE = {
    TUNER_FILE: pickle.dumps({"a": 1}),
    STATE: json.dumps({"trials": 4}).encode(),
    SEARCHER: pickle.dumps([1]),
}


@pytest.fixture
def out(bucket):
    with mirrored(
        bucket.url("sweep"), resume=False, marker="sweep.yaml", tell=print, apart=["tune"]
    ) as home:
        yield home


def put(bucket, **files):
    for name, content in files.items():
        bucket.client.put_object(Bucket="bucket", Key=f"sweep/tune/{name}", Body=content)


def keep(tmp_path, storage, files=WHOLE):
    """Let the last driver have seen these files where Tune writes them."""
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    StateKeeper(storage.kept).keep(tmp_path)


def tunes(bucket):
    tree = bucket.tree("sweep")
    return {path.removeprefix("tune/"): tree[path] for path in tree if path.startswith("tune/")}


def test_a_state_that_is_whole_is_left_as_it_is(bucket, out):
    put(bucket, **WHOLE, **{"a/checkpoint_1/w": b"weights"})
    before = bucket.gate.count
    assert TuneStorage.of(out).can_restore()
    assert bucket.gate.count == before
    assert tunes(bucket) == {**WHOLE, "a/checkpoint_1/w": b"weights"}


@pytest.mark.parametrize("name", [STATE, SEARCHER])
def test_half_a_state_is_replaced_by_the_last_whole_one(bucket, out, tmp_path, name):
    storage = TuneStorage.of(out)
    keep(tmp_path, storage)
    put(bucket, **{**WHOLE, name: WHOLE[name][:5]})
    assert storage.can_restore()
    assert tunes(bucket) == WHOLE


def test_half_a_newer_state_goes(bucket, out, tmp_path):
    storage = TuneStorage.of(out)
    keep(tmp_path, storage)
    put(bucket, **WHOLE, **{STATE.replace("01-02", "01-03"): b'{"tri'})
    assert storage.can_restore()
    assert tunes(bucket) == WHOLE


def test_without_a_whole_file_of_each_kind_there_is_nothing_to_go_on_with(bucket, out):
    assert not TuneStorage.of(out).can_restore()
    put(bucket, **{**WHOLE, STATE: b""})
    assert not TuneStorage.of(out).can_restore()


def test_the_last_whole_files_are_committed_with_the_sweep_and_tunes_are_not(bucket, out, tmp_path):
    storage = TuneStorage.of(out)
    keep(tmp_path, storage)
    put(bucket, **WHOLE)
    storage.can_restore()
    commit(out)
    kept = {path for path in bucket.tree("sweep") if not path.startswith("tune/")}
    assert kept == {f"tune-state/{STATE}", f"tune-state/{SEARCHER}"}


def test_tune_is_given_the_bucket_and_its_state_is_read_where_it_writes(bucket, out, tmp_path):
    storage = TuneStorage.of(out)
    assert storage.options["storage_path"] == "bucket/sweep"
    assert storage.options["storage_filesystem"].get_file_info("bucket").type.name == "Directory"
    staging = SimpleNamespace(experiment_driver_staging_path=str(tmp_path))
    assert storage.written([SimpleNamespace(storage=staging)]) == tmp_path
    assert storage.written([]) == out / "tune"


def test_a_sweep_on_disk_keeps_all_in_tunes_directory(tmp_path):
    storage = TuneStorage.of(tmp_path)
    assert storage.options == {"storage_path": str(tmp_path)}
    assert storage.written([object()]) == storage.held == tmp_path / "tune"
    assert storage.kept == tmp_path / "tune" / KEPT_DIRECTORY
    assert not storage.can_restore()
