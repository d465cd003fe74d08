"""One Serve for the tests that need one, on the tests' own Ray."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doubles.served import write_all


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("served")
    return {**write_all(folder, ".onnx")}


@pytest.fixture(scope="session")
def port(ray_session: None) -> Iterator[int]:
    pytest.importorskip("starlette", reason="needs the extra `serve`")
    from ray import serve

    found = free_port()
    serve.start(http_options={"host": "127.0.0.1", "port": found})
    yield found
    serve.shutdown()
