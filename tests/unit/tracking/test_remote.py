"""Of what is in a bucket, readers get what they need and no more."""

from __future__ import annotations

import json

import pytest

from rayprune.errors import StorageError
from rayprune.tracking.remote import fetch_checkpoint, fetch_record
from tests.doubles.buckets import BUCKET

RUN = {
    "config.yaml": "",
    "results.jsonl": "",
    "checkpoints/000000400/rayprune.json": "",
    "checkpoints/000000400/learner_group/state.pkl": "",
    "checkpoints/000000800/rayprune.json": "",
    "checkpoints/000000800/learner_group/state.pkl": "",
    "checkpoints/000001200/learner_group/state.pkl": "",
    "dense/config.yaml": "",
    "dense/checkpoints/000000400/rayprune.json": "",
    "wandb/run/log": "",
}
SUMMARY = {"summary.json": json.dumps({"checkpoint": "checkpoints/000000400"})}
SWEEP = {
    "sweep.yaml": "",
    "tune/state": "",
    "tune-state/state": "",
    **{f"trials/a/{name}": content for name, content in RUN.items()},
}


@pytest.fixture
def put(bucket):
    def put(files):
        for path, content in files.items():
            bucket.client.put_object(Bucket=BUCKET, Key=f"run/{path}", Body=content)
        return bucket.url("run")

    return put


def names(copy):
    return {path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()}


def test_of_a_finished_run_it_is_the_checkpoint_that_its_summary_names(put):
    assert names(fetch_checkpoint(put({**RUN, **SUMMARY}))) == {
        "config.yaml",
        "results.jsonl",
        "summary.json",
        "checkpoints/000000400/rayprune.json",
        "checkpoints/000000400/learner_group/state.pkl",
    }


def test_of_a_run_that_goes_on_it_is_the_newest_that_is_whole(put):
    assert names(fetch_checkpoint(put(RUN))) == {
        "config.yaml",
        "results.jsonl",
        "checkpoints/000000800/rayprune.json",
        "checkpoints/000000800/learner_group/state.pkl",
    }


def test_a_checkpoint_itself_comes_whole(put):
    copy = fetch_checkpoint(f"{put(RUN)}/checkpoints/000000400")
    assert names(copy) == {"rayprune.json", "learner_group/state.pkl"}
    assert copy.name == "000000400"


def test_a_sweep_is_no_checkpoint_and_is_not_fetched_for_one(put):
    assert names(fetch_checkpoint(put(SWEEP))) == {"sweep.yaml"}


def test_a_record_comes_without_checkpoints_and_what_trackers_and_tune_keep(put):
    assert names(fetch_record(put(RUN))) == {"config.yaml", "results.jsonl", "dense/config.yaml"}


def test_so_does_a_sweeps(put):
    assert names(fetch_record(put(SWEEP))) == {
        "sweep.yaml",
        "trials/a/config.yaml",
        "trials/a/results.jsonl",
        "trials/a/dense/config.yaml",
    }


@pytest.mark.parametrize("fetch", [fetch_record, fetch_checkpoint])
def test_a_path_is_given_back_and_nothing_is_named(fetch, tmp_path, bucket):
    assert fetch(tmp_path) == tmp_path
    with pytest.raises(StorageError, match="nothing at 's3://bucket/other'"):
        fetch(bucket.url("other"))
