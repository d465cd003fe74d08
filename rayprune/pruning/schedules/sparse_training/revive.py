"""Revival: a static random mask, and one growth of a reserve by chance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from rayprune.pruning.checks import Faults, in_open_unit, must
from rayprune.pruning.schedules.sparse_training.sparse_from_start import RANDOM, SparseSchedule


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviveSchedule(SparseSchedule):
    """A static random mask; at ``begin`` a reserve of the weights is revived by chance, once (TAR).

    Topology-Aware Revival (Jin et al. 2026, arXiv:2602.04166): a small share of the connections
    that shall be left at the end is held back, comes alive at one moment at random within each
    layer, and the masks are fixed from then on. How much of the reserve a layer gets, the
    distribution says, as it does of all else: `erk` gives narrow layers more. (The paper splits it
    by a measure of the layers' topology, of which only its abstract was known here.)

    >>> masks = ReviveSchedule(final=0.8, begin=100, reserve=0.1)
    >>> [round(masks.sparsity_at(step), 4) for step in (0, 99, 100, 500)], masks.end
    ([0.82, 0.82, 0.8, 0.8], 100)
    """

    defaults: ClassVar[Mapping[str, Any]] = {"begin": 0.2, "end": 0.0, "reserve": 0.1}
    endless: ClassVar[bool] = True
    grows: ClassVar[bool] = True
    grows_to_target: ClassVar[bool] = True

    reserve: float = 0.1
    """The share of the weights left at the end that is held back until ``begin``."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "end", self.begin)
        SparseSchedule.__post_init__(self)

    @property
    def regrows_by(self) -> str:
        """By chance."""
        return RANDOM

    def sparsity_at(self, step: float) -> float:
        """Return the target from ``begin`` on, and before it what the reserve leaves besides.

        A target of 0 means a dense network from the start, as it does with every schedule.
        """
        if step >= self.begin or self.final == 0:
            return self.final
        return 1 - (1 - self.final) * (1 - self.reserve)

    def grows_at(self, step: float) -> bool:
        """Return whether the reserve is due."""
        return step >= self.begin and self.final > 0

    @classmethod
    def own_faults(cls, field: str, block: Mapping[str, Any]) -> Faults:
        """Yield the faults of ``reserve``, and of a revival before anything was learnt."""
        reserve = block.get("reserve", cls.defaults["reserve"])
        if not in_open_unit(reserve):
            yield must(f"{field}.reserve", "in (0, 1), a share of what is left at the end", reserve)
        begin = block.get("begin", cls.defaults["begin"])
        if begin == 1:  # a fraction, the run's end
            yield (
                f"`{field}.begin` must be before the run's end, or nothing trains what comes "
                f"alive, but is {begin!r}. Take a fraction below 1, such as 0.2."
            )
        if begin == 0:
            yield (
                f"`{field}.begin` must be above 0, the moment at which the reserve comes alive. "
                "Without one take 'static'."
            )
