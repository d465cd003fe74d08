"""A policy's file, opened: acts on many requests at once, and tests itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal, TypeAlias

import numpy as np

from rayprune.deploy.formats import open_artifact
from rayprune.deploy.policy.file_hash import file_sha256
from rayprune.deploy.policy.interface import Array, Port
from rayprune.deploy.policy.runs import draw_noise
from rayprune.errors import InputError, InvariantError
from rayprune.serve.catalogue import PolicyFile, open_file

Stack: TypeAlias = Literal["exact", "always"]
Arrays: TypeAlias = list[Array]
_TESTED: Final = 8
"""Items that a self-test runs again."""


class OpenedPolicy:
    """A policy that acts.

    Args:
        policy: which.
        largest: the largest batch.
        stack: ``exact`` stacks only so many requests as come out of a batch bit for bit as each
            does alone, found by trying when the file is opened; ``always`` stacks any.
        closed: called once it is no longer held.

    Raises:
        InputError: the file isn't there, isn't whole, or isn't the one that was listed.
    """

    def __init__(
        self,
        policy: PolicyFile,
        largest: int,
        stack: Stack = "exact",
        closed: Callable[[], None] = lambda: None,
    ) -> None:
        self._closed: Callable[[], None] | None = None
        path = open_file(policy.source)
        if file_sha256(path) != policy.sha256:
            raise InputError(
                f"{policy.source!r} has changed since policy {policy.name!r} was deployed. Put the "
                "file back, or deploy anew."
            )
        self.policy = policy
        self._artifact = open_artifact(path)
        self._probe = _probe(policy, max(largest, _TESTED))
        self._alone = [self._run([item]) for item in self._probe]
        tried = [2**power for power in range(1, largest.bit_length()) if 2**power <= largest]
        self.sizes = [1, *(size for size in tried if stack == "always" or self._is_exact(size))]
        """Batch sizes that are run, rising."""
        self._closed = closed

    def __del__(self) -> None:
        # Serve calls it when it unloads a policy, and the garbage collector once more.
        closed, self._closed = self._closed, None
        if closed is not None:
            closed()

    def act(self, items: Sequence[Arrays]) -> list[Arrays]:
        """Act on many requests.

        Args:
            items: of each request its inputs, in the interface's order, batches of one.

        Returns:
            Of each its outputs, in the interface's order, batches of one.
        """
        done: list[Arrays] = []
        while len(done) < len(items):
            size = max(size for size in self.sizes if size <= len(items) - len(done))
            done += self._run_together(items[len(done) : len(done) + size])
        return done

    def self_test(self) -> None:
        """Act on what was tried when the file was opened.

        Raises:
            InvariantError: something else comes out.
        """
        for item, expected in zip(self._probe[:_TESTED], self._alone, strict=False):
            if not _same(self._run([item]), expected):
                raise InvariantError(
                    f"Policy {self.policy.name!r} doesn't act as it did when its file was opened."
                )

    def _run(self, items: Sequence[Arrays]) -> Arrays:
        # A copy even of a lone item: what came through Ray can't be written to, and torch warns.
        return self._artifact.run([np.concatenate(parts) for parts in zip(*items, strict=True)])

    def _run_together(self, items: Sequence[Arrays]) -> list[Arrays]:
        outputs = self._run(items)
        return [[output[i : i + 1] for output in outputs] for i in range(len(items))]

    def _is_exact(self, size: int) -> bool:
        """Whether each of the tried items comes out of a batch of this size as it does alone."""
        whole = len(self._probe) // size * size
        return all(
            _same(outputs, alone)
            for begin in range(0, whole, size)
            for outputs, alone in zip(
                self._run_together(self._probe[begin : begin + size]),
                self._alone[begin : begin + size],
                strict=True,
            )
        )


def _same(outputs: Arrays, others: Arrays) -> bool:
    return all(x.tobytes() == y.tobytes() for x, y in zip(outputs, others, strict=True))


def _probe(policy: PolicyFile, count: int) -> list[Arrays]:
    """Return inputs to try a policy with: about as those that were recorded for its file."""
    interface, draw = policy.interface, np.random.default_rng(0)
    facts = policy.metadata.about.get("inputs", {})
    columns = [
        *(_values(port, facts.get(port.name, {}), count, draw) for port in interface.observations),
        *draw_noise(interface, count, 0),
        *(_values(port, {}, count, draw) for port in interface.states),
    ]
    return [[column[i : i + 1] for column in columns] for i in range(count)]


def _values(port: Port, facts: dict[str, object], count: int, draw: np.random.Generator) -> Array:
    shape = (count, *port.shape)
    if np.issubdtype(np.dtype(port.dtype), np.integer):
        low, high = (_each(port, facts.get(key), other) for key, other in (("low", 0), ("high", 1)))
        whole: Array = draw.integers(low.astype(np.int64), high.astype(np.int64) + 1, size=shape)
        return whole.astype(port.dtype)
    mean, std = (_each(port, facts.get(key), other) for key, other in (("mean", 0), ("std", 1)))
    spread: Array = mean + 2.0 * std * draw.standard_normal(shape)
    return spread.astype(port.dtype)


def _each(port: Port, told: object, otherwise: float) -> Array:
    """Return a number for each element of an input, ``otherwise`` where none is known."""
    if told is None:
        return np.full(port.shape, otherwise, np.float64)
    numbers = np.array(told, np.float64)  # None becomes NaN
    numbers = np.where(np.isnan(numbers), otherwise, numbers)
    return np.broadcast_to(numbers.reshape(port.shape if numbers.ndim else ()), port.shape)
