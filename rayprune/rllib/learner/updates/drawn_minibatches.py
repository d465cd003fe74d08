"""Minibatches of recorded steps, straight from where they are held."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ray.rllib.policy.sample_batch import MultiAgentBatch
from ray.rllib.utils.minibatch_utils import MiniBatchRayDataIterator

from rayprune.rllib.learner.updates.minibatches import Minibatch
from rayprune.rllib.offline.draws import Draws


class DrawnMinibatches(MiniBatchRayDataIterator):
    """What RLlib's iterator yields of `Draws`, without names to join and split, or maps over it.

    It outlives an update, as RLlib's does: a Learner holds it and goes on with it.

    Args:
        draws: the steps.
        device: the Learner's.
        minibatch_size: in steps.
        num_iters: how many minibatches an update takes.
        on_minibatch: is told before each minibatch whether it is the last of its update.
    """

    def __init__(
        self,
        draws: Draws,
        device: Any,
        minibatch_size: int,
        num_iters: int,
        on_minibatch: Callable[[bool], None],
    ) -> None:
        self._drawn = draws.minibatches(minibatch_size, device)
        self._size = minibatch_size
        self._count = num_iters
        self._on_minibatch = on_minibatch

    def __iter__(self) -> Iterator[MultiAgentBatch]:  # type: ignore[override]  # RLlib's hint is of an item
        """Yield an update's minibatches."""
        for number in range(self._count):
            self._on_minibatch(number + 1 == self._count)
            columns: Any = {
                mid: Minibatch(own, self._size) for mid, own in next(self._drawn).items()
            }
            yield MultiAgentBatch(columns, self._size)


def draws_of(iterator: Any) -> Draws | None:
    """Return the recorded steps behind a Learner's iterator, if there are any."""
    held = getattr(iterator, "_iterator", None)
    return held if isinstance(held, Draws) else None
