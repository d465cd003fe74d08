"""A *part*: weights that compete with each other, one by one or pooled to units."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor


def _l2(scores: Tensor) -> Tensor:
    return scores.square().sum(dim=1).sqrt()


POOLINGS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "sum": lambda scores: scores.sum(dim=1),
    "mean": lambda scores: scores.mean(dim=1),
    "l2": _l2,
}
"""How a unit's score comes from its weights' scores, ``(units, weights) -> (units,)``."""

Named = Mapping[str, Tensor]
"""Tensors by parameter name, shaped like the parameters."""


@dataclass(frozen=True, slots=True)
class Part(ABC):
    """Weights that compete, of one layer unless a granularity says otherwise."""

    shapes: Mapping[str, torch.Size]
    """Parameter name -> shape; names are full where the part is a `PrunableLayer`'s."""

    ranks_within: ClassVar[bool] = False
    """Whether `expand` needs the weights' scores again, to choose inside of a unit."""

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of the parameters, in order."""
        return tuple(self.shapes)

    @property
    @abstractmethod
    def count(self) -> int:
        """How many compete: weights or units."""

    @abstractmethod
    def pool(self, scores: Named, pooling: str) -> Tensor:
        """Pool weight scores to the scores that compete.

        Args:
            scores: of every parameter of the part.
            pooling: a key of `POOLINGS`.

        Returns:
            One score for each that competes; any shape.
        """

    @abstractmethod
    def expand(self, keep: Tensor, scores: Named) -> Iterator[tuple[str, Tensor]]:
        """Yield each parameter's mask.

        Args:
            keep: bool, shaped as `pool` returned.
            scores: as given to `pool` where `ranks_within`; else it may be empty.
        """

    def live(self, free: Mapping[str, Tensor | None]) -> Tensor | None:
        """Return which may still be chosen: units with any weight left.

        Args:
            free: by parameter name, bool, the weights that may be chosen; None for all of them.

        Returns:
            Bool, shaped as `pool` returns; None for all of them.
        """
        known = next((mask for mask in free.values() if mask is not None), None)
        if known is None:
            return None
        counts = {
            name: torch.ones(self.shapes[name], device=known.device)
            if mask is None
            else mask.to(torch.float32)
            for name, mask in free.items()
        }
        return self.pool(counts, "sum") > 0


@dataclass(frozen=True, slots=True)
class WeightPart(Part):
    """Single weights: each competes for itself."""

    @property
    def count(self) -> int:
        """How many weights."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def pool(self, scores: Named, pooling: str) -> Tensor:
        """Return the parameter's own scores, whatever ``pooling`` is."""
        return scores[self.parameters[0]]

    def expand(self, keep: Tensor, scores: Named) -> Iterator[tuple[str, Tensor]]:
        """Yield ``keep`` itself."""
        yield self.parameters[0], keep

    def live(self, free: Mapping[str, Tensor | None]) -> Tensor | None:
        """Return the weights that may still be chosen."""
        return free[self.parameters[0]]


def by_gate(layer: torch.nn.Module) -> int:
    """Return how often a unit's rows come in each parameter: once, or once in each gate.

    >>> by_gate(torch.nn.Linear(2, 2)), by_gate(torch.nn.LSTM(2, 2)), by_gate(torch.nn.GRU(2, 2))
    (1, 4, 3)
    """
    if not isinstance(layer, torch.nn.RNNBase):
        return 1
    return 4 if isinstance(layer, torch.nn.LSTM) else 3
