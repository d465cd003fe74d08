"""In-time over-parameterisation: the share of all weights that were ever active."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor


class Coverage:
    """Which weights were ever active, of a run that is sparse from the start.

    Liu et al. 2021 (arXiv:2102.02887) call their share of all weights the in-time
    over-parameterisation (ITOP) rate, and find that it, not the sparsity, tells how well dynamic
    sparse training ends. A parameter that was dense when training began covers everything.

    >>> coverage = Coverage()
    >>> coverage.begin({"w": torch.tensor([True, True, False, False])})
    >>> coverage.note("w", torch.tensor([True, False, True, False]))
    >>> coverage.share({"w": (2, 2), "dense": (4,)})
    0.875
    """

    def __init__(self, ever: Mapping[str, Tensor] | None = None) -> None:
        self.ever = dict(ever or {})
        """Full parameter name -> bool, True = was active; a name is absent if all of it was."""

    def begin(self, masks: Mapping[str, Tensor]) -> None:
        """Start from the masks that training begins with."""
        self.ever = {name: mask.clone() for name, mask in masks.items()}

    def note(self, name: str, mask: Tensor) -> None:
        """Add what is active now."""
        if name in self.ever:
            self.ever[name] = self.ever[name].to(mask.device).logical_or_(mask)

    def share(self, shapes: Mapping[str, Iterable[int]]) -> float:
        """Return the share of weights that were ever active.

        Args:
            shapes: the parameters that count, by full name.
        """
        totals = {name: math.prod(shape) for name, shape in shapes.items()}
        covered = sum(
            int(torch.count_nonzero(self.ever[name])) if name in self.ever else total
            for name, total in totals.items()
        )
        return covered / sum(totals.values())

    def by_layer(self, shapes: Mapping[str, Mapping[str, Iterable[int]]]) -> dict[str, Any] | None:
        """Return ``{"all": share, "layers": {name: share}}``; None where training began dense.

        Args:
            shapes: layer name -> its parameters' shapes by full name.
        """
        if not self.ever:
            return None
        every = {name: shape for held in shapes.values() for name, shape in held.items()}
        layers = {name: self.share(held) for name, held in shapes.items()}
        return {"all": self.share(every), "layers": layers}
