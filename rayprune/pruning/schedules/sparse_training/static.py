"""Static sparse training: a random mask that never changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from rayprune.pruning.checks import Faults
from rayprune.pruning.schedules.sparse_training.sparse_from_start import SparseSchedule


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticSchedule(SparseSchedule):
    """A random mask before the first update, never changed; ``begin`` and ``end`` play no part.

    >>> mask = StaticSchedule(final=0.9)
    >>> [mask.sparsity_at(step) for step in (0, 500)], mask.grows_at(500)
    ([0.9, 0.9], False)
    """

    defaults: ClassVar[Mapping[str, Any]] = {"end": 0.0}
    endless: ClassVar[bool] = True
    fixed: ClassVar[bool] = True

    @classmethod
    def own_faults(cls, field: str, block: Mapping[str, Any]) -> Faults:
        """Yield the fault of a beginning that waits."""
        if isinstance(block.get("begin"), Mapping):
            yield f"`{field}.begin` must be left out: a static mask is there from the start."
