"""Requests that wait while others are under way go to the replica together, in one call."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple, TypeAlias

from rayprune.deploy.policy.interface import Array

Answers: TypeAlias = "list[list[Array] | None]"
_UNDER_WAY: Final = 2
"""Calls at a time: while one is answered the next one travels."""
_MOST: Final = 64
"""Requests of one call."""


class _Waiting(NamedTuple):
    name: str
    inputs: list[Array]
    answer: asyncio.Future[list[Array] | None]


class SharedCalls:
    """Sends what waits in as few calls as there are.

    A request never waits for others: where less than two calls are under way, it is sent at once.

    Args:
        send: takes the policies' names and the inputs of many requests; returns an answer each.
    """

    def __init__(self, send: Callable[[list[str], list[list[Array]]], Awaitable[Answers]]) -> None:
        self._send = send
        self._waiting: deque[_Waiting] = deque()
        self._calls: set[asyncio.Task[None]] = set()

    async def act(self, name: str, inputs: list[Array]) -> list[Array] | None:
        """Return a policy's answer, None where it has to be asked for by itself.

        Raises:
            Exception: what the call raised that the request was in.
        """
        one = _Waiting(name, inputs, asyncio.get_running_loop().create_future())
        self._waiting.append(one)
        self._begin()
        return await one.answer

    def _begin(self) -> None:
        while self._waiting and len(self._calls) < _UNDER_WAY:
            count = min(_MOST, len(self._waiting))
            together = [self._waiting.popleft() for _ in range(count)]
            self._calls.add(call := asyncio.create_task(self._call(together)))
            call.add_done_callback(self._ended)

    def _ended(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        self._begin()

    async def _call(self, together: list[_Waiting]) -> None:
        try:
            found = await self._send(
                [one.name for one in together], [one.inputs for one in together]
            )
        except Exception as error:
            for one in together:
                if not one.answer.done():  # whoever asked may have gone
                    one.answer.set_exception(error)
            return
        for one, answer in zip(together, found, strict=True):
            if not one.answer.done():
                one.answer.set_result(answer)
