"""Evidence of several processes, brought together so that each of them scores the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor


class Reduce(Protocol):
    """Brings the evidence of several processes together, the same on each of them."""

    def mean(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return the means over the processes."""

    def join(self, tensor: Tensor) -> Tensor:
        """Return the rows of all processes, in the order of their ranks."""


class SingleProcess:
    """There is one process only."""

    def mean(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return them as they are."""
        return list(tensors)

    def join(self, tensor: Tensor) -> Tensor:
        """Return it as it is."""
        return tensor
