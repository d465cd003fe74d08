"""Schedules of runs that are sparse before their first update: static, SET, RigL, growing.

All start from a random mask. What they may do to it later is drop weights and regrow as many in
the same layer (SET, RigL), or only grow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from rayprune.pruning.schedules.base import check_schedule

RANDOM: Final = "random"
GRADIENT: Final = "gradient"
REGROW: Final = (GRADIENT, RANDOM)
"""How the weights that grow back are chosen: by the size of their dense gradient, or by chance."""

DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "static": {"begin": 0.0, "end": 0.0},
    # Evci et al. 2020 drop 30 % at first, and end at three quarters of the training.
    "set": {"begin": 0.0, "end": 0.75, "drop_fraction": 0.3},
    "rigl": {"begin": 0.0, "end": 0.75, "drop_fraction": 0.3, "minibatches": 100},
    "grow": {"begin": 0.0, "end": 0.75, "start": 0.98, "regrow": GRADIENT, "minibatches": 100},
}
"""What a schedule of such a kind has where the config says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SparseSchedule:
    """What they share: sparse from the start, and no change of the masks unless said."""

    final: float
    begin: float = 0.0
    end: float = 0.0

    def __post_init__(self) -> None:
        check_schedule(self.final, self.begin, self.end)

    @property
    def regrows_by(self) -> str | None:
        """How regrown weights are chosen, one of `REGROW`; None where nothing grows."""
        return None

    @property
    def window(self) -> int:
        """How many minibatches' dense gradients are averaged before weights grow by them."""
        return 0

    def sparsity_at(self, step: float) -> float:
        """Return the same sparsity for all time."""
        del step
        return self.final

    def drop_fraction_at(self, step: float) -> float:
        """Return the fraction of each layer's weights that is dropped and regrown at a step."""
        del step
        return 0.0

    def grows_at(self, step: float) -> bool:
        """Return whether a mask update at this step lets weights grow."""
        return self.drop_fraction_at(step) > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticSchedule(SparseSchedule):
    """A random mask before the first update, never changed; ``begin`` and ``end`` play no part.

    >>> mask = StaticSchedule(final=0.9)
    >>> [mask.sparsity_at(step) for step in (0, 500)], mask.grows_at(500)
    ([0.9, 0.9], False)
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class _DropAndRegrow(SparseSchedule):
    drop_fraction: float = 0.3

    def drop_fraction_at(self, step: float) -> float:
        """Return the fraction due from ``begin`` on and before ``end``; 0 outside, and at step 0.

        At step 0 nothing has been learnt that could tell weights apart.
        """
        if not self.begin <= step < self.end or step == 0:
            return 0.0
        return self._annealed((step - self.begin) / (self.end - self.begin))

    def _annealed(self, progress: float) -> float:
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class SetSchedule(_DropAndRegrow):
    """SET (Mocanu et al. 2018, arXiv:1707.04780): drop the lowest scores, regrow by chance.

    The drop fraction stays what it is until ``end``.

    >>> evolution = SetSchedule(final=0.9, end=100, drop_fraction=0.3)
    >>> [evolution.drop_fraction_at(step) for step in (0, 1, 50, 99, 100)]
    [0.0, 0.3, 0.3, 0.3, 0.0]
    """

    @property
    def regrows_by(self) -> str:
        """By chance."""
        return RANDOM

    def _annealed(self, progress: float) -> float:
        del progress
        return self.drop_fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class RiglSchedule(_DropAndRegrow):
    """RigL (Evci et al. 2020, arXiv:1911.11134): drop the lowest scores, regrow by dense gradient.

    The drop fraction decays as ``drop_fraction / 2 * (1 + cos(pi * p))``,
    ``p = (step - begin) / (end - begin)``.

    >>> lottery = RiglSchedule(final=0.9, end=100, drop_fraction=0.3)
    >>> [round(lottery.drop_fraction_at(step), 4) for step in (25, 50, 75, 100)]
    [0.2561, 0.15, 0.0439, 0.0]
    """

    minibatches: int = 100

    @property
    def regrows_by(self) -> str:
        """By the dense gradient."""
        return GRADIENT

    @property
    def window(self) -> int:
        """``minibatches``."""
        return self.minibatches

    def _annealed(self, progress: float) -> float:
        return self.drop_fraction / 2 * (1 + math.cos(math.pi * progress))


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowSchedule(SparseSchedule):
    """From a random mask sparser than the target down to the target, along a straight line.

    A target of 0 means a dense network from the start, as it does with every schedule.

    >>> growth = GrowSchedule(final=0.8, start=0.9, begin=0, end=100)
    >>> [round(growth.sparsity_at(step), 4) for step in (0, 50, 100, 500)]
    [0.9, 0.85, 0.8, 0.8]
    """

    start: float = 0.98
    regrow: str = GRADIENT
    minibatches: int = 100

    @property
    def regrows_by(self) -> str:
        """As ``regrow`` says."""
        return self.regrow

    @property
    def window(self) -> int:
        """``minibatches``, where gradients are asked for."""
        return self.minibatches if self.regrow == GRADIENT else 0

    def sparsity_at(self, step: float) -> float:
        """Return ``start`` up to ``begin``, ``final`` from ``end`` on, the line between."""
        if step >= self.end or self.final == 0:
            return self.final
        if step <= self.begin:
            return self.start
        progress = (step - self.begin) / (self.end - self.begin)
        return self.start + (self.final - self.start) * progress

    def grows_at(self, step: float) -> bool:
        """Return whether the line has begun to fall."""
        return step > self.begin and self.final > 0
