"""Granularity ``weight``: unstructured pruning, of single weights wherever they are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from rayprune.pruning.granularity.base import Named, Part, WithinLayers


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


class WeightGranularity(WithinLayers):
    """Single weights."""

    __slots__ = ()

    single_weights = swaps_weights = True

    def split(self, layer: nn.Module, parameters: Mapping[str, Tensor]) -> list[Part]:
        """Make each parameter a part in which each weight competes for itself."""
        return weight_parts(parameters)


def weight_parts(parameters: Mapping[str, Tensor]) -> list[Part]:
    """Make each parameter a part in which each weight competes for itself."""
    return [WeightPart({name: weight.shape}) for name, weight in parameters.items()]
