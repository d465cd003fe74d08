"""What is told of a head before anything is sent to it."""

import os
import socket
import threading
import time
from contextlib import contextmanager

import pytest
import ray
from ray.exceptions import AuthenticationError

from rayprune.errors import InputError, ResourceError
from rayprune.jobs.head import check_head, client, head_url
from rayprune.rllib.cluster.connect import _JOINING, connect
from tests.doubles.dashboard_server import answering

OURS = {"ray_version": ray.__version__}


@pytest.fixture(autouse=True)
def _no_addresses(monkeypatch):
    # Another test of this process may have left a Ray that `connect` would stay with.
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_the_option_comes_before_the_environment(monkeypatch):
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://other:8265")
    assert head_url("http://mine:8265/") == "http://mine:8265"
    assert head_url(None) == "http://other:8265"


def test_the_address_of_a_cluster_in_the_environment_is_none_for_jobs(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with pytest.raises(InputError, match="--address http://HEAD:8265"):
        head_url(None)
    monkeypatch.setenv("RAY_ADDRESS", "http://10.0.0.1:8265")
    assert head_url(None) == "http://10.0.0.1:8265"


@pytest.mark.parametrize("given", ["auto", "local", "ray://head:10001"])
def test_an_address_for_drivers_is_refused(given):
    with pytest.raises(InputError, match="dashboard"):
        head_url(given)


@pytest.mark.parametrize(
    ("status", "told"), [(401, "asks for a token"), (403, "refuses this token")]
)
def test_a_head_with_a_token_says_what_to_set(status, told):
    with (
        answering(status, "no") as url,
        pytest.raises(ResourceError, match=f"{told}.*RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN"),
    ):
        check_head(url)


def test_another_release_of_ray_is_refused_by_both_versions():
    ours = ray.__version__.replace(".", r"\.")
    with (
        answering(200, {"ray_version": "2.9.3"}) as url,
        pytest.raises(ResourceError, match=rf"runs Ray 2\.9\.3, but rayprune runs on Ray {ours}"),
    ):
        check_head(url)


def test_a_patch_of_the_same_release_will_do():
    with answering(200, {"ray_version": ".".join([*ray.__version__.split(".")[:2], "99"])}) as url:
        check_head(url)


@pytest.mark.parametrize("body", ["<html>", [], {"version": 4}])
def test_what_answers_and_is_no_head_is_told(body):
    with answering(200, body) as url, pytest.raises(ResourceError, match="is not Ray"):
        check_head(url)


def test_a_dead_head_is_told_at_once():
    started = time.monotonic()
    with pytest.raises(ResourceError, match=r"No Ray dashboard answers at .*Connection refused"):
        check_head(f"http://127.0.0.1:{free_port()}")
    assert time.monotonic() - started < 60


def test_rays_client_goes_where_we_say_and_leaves_the_environment_as_it_was(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "http://stranger:8265")
    with answering(200, OURS) as url, client(url) as cluster:
        assert cluster.get_address() == url
    assert "RAY_API_SERVER_ADDRESS" not in os.environ


@contextmanager
def saying(first_bytes):
    """Answer one connection with those bytes; give the address."""

    def answer():
        line, _ = listener.accept()
        line.recv(100)
        line.sendall(first_bytes)
        line.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


def test_a_driver_is_told_that_it_was_given_a_dashboard():
    with pytest.raises(ResourceError, match="rayprune submit"):
        connect("http://127.0.0.1:8265", None)
    with (
        saying(b"HTTP/1.1 400 Bad Request\r\n") as address,
        pytest.raises(ResourceError, match="rayprune submit"),
    ):
        connect(address, None)


@pytest.mark.parametrize("first_bytes", [b"", b"SSH-2.0-OpenSSH_9.6\r\n"])
def test_a_driver_is_told_that_what_listens_is_not_ray(first_bytes):
    with saying(first_bytes) as address, pytest.raises(ResourceError, match="is not Ray"):
        connect(address, None)


@pytest.mark.parametrize("address", ["127.0.0.1", "head"])
def test_a_driver_is_told_that_the_port_is_missing(address):
    with pytest.raises(ResourceError, match="HOST:PORT"):
        connect(address, None)


def test_a_driver_is_let_in_or_refused_within_seconds(monkeypatch):
    seen = []

    def refuse(**_):
        seen.append(os.environ[_JOINING])
        raise AuthenticationError("no")

    monkeypatch.setattr(ray, "init", refuse)
    monkeypatch.delenv(_JOINING, raising=False)
    settings = bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))  # what a gRPC server says first
    with saying(settings) as address, pytest.raises(ResourceError, match="RAY_AUTH_TOKEN"):
        connect(address, None)
    assert seen == ["3"]
    assert _JOINING not in os.environ
