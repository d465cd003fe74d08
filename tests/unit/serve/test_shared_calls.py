"""Requests that wait go together; each gets its own answer."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np

from rayprune.serve.shared_calls import SharedCalls


class Replica:
    """Answers with the input, doubled; holds each call until it is let go."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.gates: list[asyncio.Event] = []
        self.fault: Exception | None = None

    async def send(self, names: list[str], inputs: list[Any]) -> list[Any]:
        self.calls.append(names)
        gate = asyncio.Event()
        self.gates.append(gate)
        await gate.wait()
        if self.fault is not None:
            raise self.fault
        both = zip(names, inputs, strict=True)
        return [None if name == "closed" else [2 * given[0]] for name, given in both]


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_what_waits_while_two_calls_are_under_way_goes_in_the_next_one() -> None:
    async def run() -> tuple[list[Any], list[int]]:
        replica = Replica()
        shared = SharedCalls(replica.send)
        asked = [asyncio.ensure_future(shared.act("a", [np.array([i])])) for i in range(9)]
        await settle()
        while not all(one.done() for one in asked):
            for gate in replica.gates:
                gate.set()
            await settle()
        return [one.result()[0][0] for one in asked], [len(call) for call in replica.calls]

    answers, sizes = asyncio.run(run())
    assert answers == [2 * i for i in range(9)]
    assert sizes == [1, 1, 7]


def test_what_is_not_open_is_told_apart_and_a_lost_call_fails_all_that_was_in_it() -> None:
    async def run() -> tuple[Any, list[Any]]:
        replica = Replica()
        shared = SharedCalls(replica.send)
        first = asyncio.ensure_future(shared.act("closed", [np.array([1])]))
        await settle()
        replica.gates[0].set()
        closed = await first
        replica.fault = RuntimeError("lost")
        asked = [asyncio.ensure_future(shared.act("a", [np.array([i])])) for i in range(2)]
        gone = asyncio.ensure_future(shared.act("a", [np.array([2])]))
        await settle()
        gone.cancel()  # whose client has left
        for _ in range(3):
            for gate in replica.gates:
                gate.set()
            await settle()
        return closed, await asyncio.gather(*asked, return_exceptions=True)

    closed, lost = asyncio.run(run())
    assert closed is None
    assert [str(error) for error in lost] == ["lost", "lost"]
