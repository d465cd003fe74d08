"""Recurrent state by session: bounded, the least recently used forgotten, and told of."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from rayprune.deploy.policy.artifact import State
from rayprune.deploy.policy.interface import Array
from rayprune.serve.catalogue import PolicyFile
from rayprune.serve.request_error import RequestError

_REMEMBERED: Final = 10_000
"""How many forgotten sessions are known by name, to say so when one is asked for."""


@dataclass(slots=True)
class Session:
    """One episode of one policy."""

    state: State
    steps: int = 0
    """Actions since it began."""
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by the request that acts: each needs the state that the one before leaves."""

    def follow(self, policy: PolicyFile, following: list[Array]) -> None:
        """Keep the state that an action has led to."""
        names = [port.name for port in policy.interface.states]
        self.state = dict(zip(names, following, strict=True))
        self.steps += 1


class Sessions:
    """All sessions of one process.

    Args:
        most: how many are held.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: OrderedDict[tuple[str, str], Session] = OrderedDict()
        self._forgotten: OrderedDict[tuple[str, str], None] = OrderedDict()
        self.forgotten = 0
        """How many have been forgotten."""

    def __len__(self) -> int:
        return len(self._held)

    def begin(self, policy: PolicyFile, name: str) -> Session:
        """Begin a session, or begin it anew; the least recently used may be forgotten for it."""
        key = (policy.name, name)
        self._held.pop(key, None)
        self._forgotten.pop(key, None)
        while len(self._held) >= self._most:
            oldest, _ = self._held.popitem(last=False)
            self.forgotten += 1
            self._forgotten[oldest] = None
            if len(self._forgotten) > _REMEMBERED:
                self._forgotten.popitem(last=False)
        state = {port.name: port.zeros(1) for port in policy.interface.states}
        self._held[key] = made = Session(state)
        return made

    def get(self, policy: PolicyFile, name: str) -> Session:
        """Return a session.

        Raises:
            RequestError: it was never begun, or has been forgotten.
        """
        key = (policy.name, name)
        if key in self._held:
            self._held.move_to_end(key)
            return self._held[key]
        if key in self._forgotten:
            raise RequestError(
                f"`session` {name!r} of policy {policy.name!r} was forgotten: {self._most} are "
                'held, and it was the one not used for longest. Begin it anew with `"begin": '
                "true`, end sessions with DELETE, or serve with a larger `--sessions`.",
                410,
                "session",
            )
        raise RequestError(
            f"`session` must be one that has begun, but policy {policy.name!r} has none called "
            f'{name!r} here. Begin it with `"begin": true`; a session also ends with the process '
            "that holds it.",
            404,
            "session",
        )

    def end(self, policy: PolicyFile, name: str) -> None:
        """End a session.

        Raises:
            RequestError: there is none.
        """
        self.get(policy, name)
        del self._held[policy.name, name]
