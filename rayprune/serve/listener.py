"""HTTP straight into the process of an ingress, without a proxy of Serve's in between."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

import uvicorn
from starlette.requests import Request
from starlette.responses import Response

_WAITING: Final = 2048
"""Connections that may wait to be taken."""
_KEEP_ALIVE_S: Final = 75
"""How long a connection without requests is kept."""
_ENDS_S: Final = 10


class Listener:
    """Listens for HTTP in the event loop that opened it.

    Args:
        answer: what makes an answer of a request.
        most: requests that are answered at a time; more are told to come again (503).
    """

    def __init__(self, answer: Callable[[Request], Awaitable[Response]], most: int) -> None:
        self._answer, self._most = answer, most
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None

    async def open(self, host: str, port: int) -> None:
        """Listen from now on.

        Raises:
            OSError: something else listens there.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        place = socket.create_server((host, port), family=family, backlog=_WAITING)
        server = _Server(
            uvicorn.Config(
                self._called,
                interface="asgi3",
                lifespan="off",
                proxy_headers=False,
                log_config=None,
                access_log=False,
                server_header=False,
                limit_concurrency=self._most,
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=_ENDS_S,
            )
        )
        self._server = server
        self._serving = asyncio.create_task(server.serve(sockets=[place]))
        while not server.started and not self._serving.done():
            await asyncio.sleep(0.01)
        if self._serving.done():
            await self._serving  # raises what has ended it

    async def close(self) -> None:
        """Take nothing more; return once what was taken is answered."""
        if self._server is not None and self._serving is not None:
            self._server.should_exit = True
            await self._serving
            self._server = self._serving = None

    async def _called(self, scope: Any, receive: Any, send: Any) -> None:
        answer = await self._answer(Request(scope, receive))
        await answer(scope, receive, send)


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none: the process is Ray's, which has its own ways to end it."""
        yield
