"""The replica that holds opened policies and acts: many of them, the least recently used unloaded.

It keeps nothing of a request, so that any other replica can answer it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import Any
from weakref import WeakValueDictionary

import torch
from ray import serve

from rayprune.deploy.formats import format_named
from rayprune.deploy.policy.interface import Array
from rayprune.serve.catalogue import Catalogue, look_up
from rayprune.serve.metrics import ReplicaMetrics
from rayprune.serve.opened_policy import OpenedPolicy, Stack


class PolicyReplica:
    """Acts for `rayprune.serve.ingress.PolicyIngress`; a class for Ray Serve's deployments.

    Args:
        catalogue: what is served.
        loaded: how many policies are held open.
        batch: the most requests that are answered together.
        wait_ms: how long a request waits for others.
        stack: see `OpenedPolicy`.
    """

    def __init__(
        self, catalogue: Catalogue, *, loaded: int, batch: int, wait_ms: float, stack: Stack
    ) -> None:
        # Replicas are what makes use of cores.
        torch.set_num_threads(1)
        for kind in {policy.format for policy in catalogue.values()}:
            # Takes seconds, which the first requests would wait for.
            format_named(kind).load_runtime()
        self._catalogue, self._batch, self._stack = catalogue, batch, stack
        self._metrics = ReplicaMetrics()
        self._open: WeakValueDictionary[str, OpenedPolicy] = WeakValueDictionary()

        async def load(name: str) -> OpenedPolicy:
            return await self._load(name)

        async def act(names: list[str], inputs: list[list[Array]]) -> list[list[Array]]:
            return await self._act(names[0], inputs)

        # As decorators of methods both would have their numbers fixed with the class.
        self._loaded: Any = serve.multiplexed(load, max_num_models_per_replica=loaded)
        together: Any = serve.batch(max_batch_size=batch, batch_wait_timeout_s=wait_ms / 1000)
        self._batched: Any = together(act)

    async def act(self, name: str, inputs: list[Array]) -> list[Array]:
        """Act on one observation.

        Args:
            name: of the policy; also the request's multiplexed model id, by which Serve finds the
                replica that has it open, and keeps batches to one policy.
            inputs: in the interface's order, checked, a batch of one.

        Returns:
            The outputs, in the interface's order, a batch of one.
        """
        answer: list[Array] = await self._batched(name, inputs)
        return answer

    async def act_many(
        self, names: list[str], inputs: list[list[Array]]
    ) -> list[list[Array] | None]:
        """Act on many observations, of any policies that are open.

        Args:
            names: of each one's policy.
            inputs: as `act` takes them.

        Returns:
            As `act` returns them; None for those that have to be asked for by themselves: their
            policy isn't open, and opening it would keep the others waiting, or it failed, which is
            no matter of the others'.
        """
        places: dict[str, list[int]] = {}
        for place, name in enumerate(names):
            places.setdefault(name, []).append(place)
        answers: list[list[Array] | None] = [None] * len(names)
        for name, own in places.items():
            if name in self._open:
                with contextlib.suppress(Exception):  # told to whom it concerns, asked by itself
                    found = await self._act(name, [inputs[place] for place in own])
                    for place, answer in zip(own, found, strict=True):
                        answers[place] = answer
        return answers

    async def check_health(self) -> None:
        """Let each open policy test itself; Serve restarts a replica that raises."""
        for policy in list(self._open.values()):
            policy.self_test()

    def pid(self) -> int:
        """Return the process's id on its machine."""
        return os.getpid()

    async def stats(self) -> dict[str, int]:
        """Return what has been counted since the replica began."""
        return {**self._metrics.counts, "open": len(self._open)}

    async def _load(self, name: str) -> OpenedPolicy:
        policy = look_up(self._catalogue, name)

        def closed() -> None:
            self._metrics.evicted(name)

        # In a thread: a file may have to be fetched, or compiled.
        opened = await asyncio.to_thread(OpenedPolicy, policy, self._batch, self._stack, closed)
        self._metrics.loaded(name)
        self._open[name] = opened
        return opened

    async def _act(self, name: str, inputs: list[list[Array]]) -> list[list[Array]]:
        opened: OpenedPolicy = await self._loaded(name)
        self._metrics.batch(name, len(inputs))
        return opened.act(inputs)
