"""A replica's calls of many requests: what fails in one policy is no matter of the others'."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

pytest.importorskip("starlette", reason="needs the extra `serve`")

from rayprune.serve.replica import PolicyReplica


class Policy:
    """Answers with the input, or fails."""

    def __init__(self, fails: bool) -> None:
        self._fails = fails

    def act(self, items: list[Any]) -> list[Any]:
        if self._fails:
            raise RuntimeError("an operator failed")
        return items


class Counted:
    def batch(self, name: str, size: int) -> None: ...


def test_a_policy_that_fails_is_asked_for_by_itself_and_the_others_are_answered() -> None:
    replica = object.__new__(PolicyReplica)
    held = {"good": Policy(fails=False), "bad": Policy(fails=True)}

    async def loaded(name: str) -> Policy:
        return held[name]

    parts: Any = {"_open": held, "_loaded": loaded, "_metrics": Counted()}
    vars(replica).update(parts)
    given: Any = [[np.array([number])] for number in range(4)]
    found = asyncio.run(replica.act_many(["good", "bad", "closed", "good"], given))
    assert found == [given[0], None, None, given[3]]
