"""RigL: dynamic sparse training that regrows by the dense gradient."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from rayprune.pruning.checks import Faults, count
from rayprune.pruning.schedules.sparse_training.drop_and_regrow import (
    DropAndRegrow,
    drop_fraction_faults,
)
from rayprune.pruning.schedules.sparse_training.sparse_from_start import GRADIENT


@dataclass(frozen=True, slots=True, kw_only=True)
class RiglSchedule(DropAndRegrow):
    """RigL (Evci et al. 2020, arXiv:1911.11134): drop the lowest scores, regrow by dense gradient.

    The drop fraction decays as ``drop_fraction / 2 * (1 + cos(pi * p))``,
    ``p = (step - begin) / (end - begin)``.

    >>> lottery = RiglSchedule(final=0.9, end=100, drop_fraction=0.3)
    >>> [round(lottery.drop_fraction_at(step), 4) for step in (25, 50, 75, 100)]
    [0.2561, 0.15, 0.0439, 0.0]
    """

    defaults: ClassVar[Mapping[str, Any]] = {"minibatches": 100}

    minibatches: int = 100

    @property
    def regrows_by(self) -> str:
        """Regrown weights are those with the largest dense gradients."""
        return GRADIENT

    @property
    def window(self) -> int:
        """As many minibatches as ``minibatches`` says."""
        return self.minibatches

    def _annealed(self, progress: float) -> float:
        return self.drop_fraction / 2 * (1 + math.cos(math.pi * progress))

    @classmethod
    def own_faults(cls, field: str, block: Mapping[str, Any]) -> Faults:
        """Yield the faults of ``drop_fraction`` and ``minibatches``."""
        yield from drop_fraction_faults(field, block)
        yield from count(f"{field}.minibatches", block.get("minibatches", 1))
