"""What stands in the way of serving is told, and what has begun to start is ended."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("starlette", reason="needs the extra `serve`")

from rayprune.errors import InputError, RunError
from rayprune.serve import server


def test_a_taken_port_and_a_host_of_another_machine_are_told_apart() -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        with pytest.raises(InputError, match=rf"`--port` must be free, but 127\.0\.0\.1:{port}"):
            server._check_free("127.0.0.1", port)
    for host in ("192.0.2.1", "no such host"):
        with pytest.raises(InputError, match=f"`--host` must be an address of.*is '{host}'"):
            server._check_free(host, 8000)


def test_an_application_that_does_not_start_is_not_left_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    deleted: list[str] = []

    def run(*_: Any, **__: Any) -> None:
        raise RuntimeError("no room")

    serve = SimpleNamespace(
        status=lambda: SimpleNamespace(applications={}), run=run, delete=deleted.append
    )
    monkeypatch.setattr(server, "serve", serve)
    application: Any = None
    with (
        pytest.raises(RunError, match="can't start the policies: RuntimeError: no room"),
        server._application(application, "mine", ""),
    ):
        raise AssertionError
    assert deleted == ["mine"]
    serve.status = lambda: SimpleNamespace(applications={"mine": 1})
    with pytest.raises(InputError, match="runs on this cluster already"):
        server._application(application, "mine", "").__enter__()
    assert deleted == ["mine"], "somebody else's"
