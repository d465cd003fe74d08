"""URLs are read as the environment and pyarrow say, and refused with a way out."""

from __future__ import annotations

import pickle
import socket
import sys
from pathlib import Path
from types import SimpleNamespace

import pyarrow
import pytest
from pyarrow import fs

from rayprune.errors import StorageError
from rayprune.storage import urls
from rayprune.storage.urls import _endpoint, check_url, join, open_url, told_of, url_of


def test_a_path_that_has_swallowed_a_slash_is_still_a_url():
    assert url_of(Path("s3://bucket/a/b?scheme=http")) == "s3://bucket/a/b?scheme=http"
    assert url_of("gs:/bucket/x") == "gs://bucket/x"


@pytest.mark.parametrize("path", ["runs/a", "/shared/a", "C:/runs/a", "", "a:b", "./s3"])
def test_a_path_is_none(path):
    assert url_of(path) is None


def test_what_lies_under_a_url_comes_before_its_query():
    assert join(Path("s3://b/run/?scheme=http"), "x", "y") == "s3://b/run/x/y?scheme=http"
    assert join(Path("runs/a"), "x") == str(Path("runs/a/x"))


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("s4://bucket/run", "no storage of the kind 's4'"),
        ("file:///tmp/run", "Give a path"),
        ("ss3://bucket/run", "Did you mean 's3'"),
        ("s3://bucket", "names no directory"),
        ("s3://bucket/", "names no directory"),
        ("s3://key:hunter2@bucket/run", "holds a password"),
    ],
)
def test_what_is_no_place_for_results_is_refused(url, told):
    with pytest.raises(StorageError, match=told) as caught:
        check_url(url)
    assert "hunter2" not in str(caught.value)


def test_a_query_that_pyarrow_does_not_know_is_refused_by_its_own_words():
    with pytest.raises(StorageError, match=r"'s3://bucket/run\?endpoit=1'.*'endpoit'"):
        open_url("s3://bucket/run?endpoit=1")


def test_without_pyarrow_it_is_said_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(StorageError, match=r"pip install 'rayprune\[rllib\]'"):
        open_url("s3://bucket/run")


def test_the_endpoint_of_the_query_wins_over_the_environments(bucket, monkeypatch):
    host = bucket.endpoint.removeprefix("http://")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    place = open_url(f"s3://bucket/run?endpoint_override={host}&scheme=http")
    with place.files.open_output_stream("a") as stream:
        stream.write(b"here")
    assert bucket.tree("run") == {"a": b"here"}
    assert place.path == "bucket/run"


def test_a_small_file_is_one_request(bucket):
    place = open_url(bucket.url("run"))
    before = bucket.gate.count
    with place.files.open_output_stream("a") as stream:
        stream.write(b"here")
    assert bucket.gate.count == before + 1


def test_a_pyarrow_that_does_not_know_single_requests_is_used_without(bucket, monkeypatch):
    def older(url):
        if "allow_delayed_open" in url:
            raise pyarrow.ArrowInvalid("Unexpected query parameter")
        return newer(url)

    newer = fs.FileSystem.from_uri
    monkeypatch.setattr(fs, "FileSystem", SimpleNamespace(from_uri=older))
    assert open_url(bucket.url("run")).path == "bucket/run"


def test_nothing_secret_is_pickled_with_a_file_system(bucket):
    place = open_url(bucket.url("run"))
    assert b"secret-of-the-tests" not in pickle.dumps(place.base)
    assert b"key-of-the-tests" not in pickle.dumps(place.base)
    assert bucket.endpoint.encode() in pickle.dumps(place.base)


def test_a_bucket_that_is_not_there_is_named(bucket):
    place = open_url("s3://nowhere/run")
    with (
        pytest.raises(StorageError, match=r"'s3://nowhere/run'.*no such bucket"),
        told_of(place.url),
    ):
        place.files.open_output_stream("a").close()


@pytest.mark.parametrize("listens", [False, True], ids=["closed", "silent"])
def test_an_endpoint_that_does_not_answer_is_told_within_seconds(monkeypatch, listens):
    monkeypatch.setattr(urls, "PATIENCE_S", 0.2)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        if listens:
            nobody.listen()
        host = f"127.0.0.1:{nobody.getsockname()[1]}"
        with pytest.raises(StorageError, match=r"does not answer.*AWS_ENDPOINT_URL") as caught:
            open_url(f"s3://bucket/run?endpoint_override={host}&scheme=http&region=x")
    assert host in str(caught.value)


def test_endpoints_are_found_where_pyarrow_finds_them(monkeypatch):
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3", raising=False)
    assert _endpoint("s3://bucket/run") is None
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://a:1")
    assert _endpoint("s3://bucket/run") == "http://a:1"
    assert _endpoint("gs://bucket/run") is None
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://b:1")
    assert _endpoint("s3://bucket/run") == "http://b:1"
    assert _endpoint("s3://bucket/run?endpoint_override=c:1") == "https://c:1"


@pytest.mark.parametrize("code", ["ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "EXPIRED_TOKEN"])
def test_a_denial_says_which_variables_to_set(code):
    with (
        pytest.raises(StorageError, match=r"'s3://b/r'.*AWS_SECRET_ACCESS_KEY"),
        told_of("s3://b/r"),
    ):
        raise OSError(f"When uploading ...: AWS Error {code} during PutObject operation: No.")


def test_any_other_failure_is_told_in_its_own_words():
    with pytest.raises(StorageError) as caught, told_of("s3://b/r"):
        raise OSError("The moon is full\nand so on")
    assert str(caught.value) == "'s3://b/r' can't be used. The moon is full"
