"""Dropping and regrowing: what SET and RigL share, dynamic sparse training of one density."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from rayprune.pruning.checks import Faults, number
from rayprune.pruning.component import Chosen
from rayprune.pruning.schedules.sparse_training.sparse_from_start import SparseSchedule


@dataclass(frozen=True, slots=True, kw_only=True)
class DropAndRegrow(SparseSchedule):
    """Dynamic sparse training: drop a fraction of the weights, regrow as many in the same layer.

    With granularity ``n:m`` each grows back in the group that the dropped one was in.
    """

    # Evci et al. 2020 drop 30 % at first, and end at three quarters of the training.
    defaults: ClassVar[Mapping[str, Any]] = {"drop_fraction": 0.3}
    grows: ClassVar[bool] = True

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

    @classmethod
    def growth_faults(cls, what: str, prefix: str, chosen: Chosen) -> Faults:
        """Yield the fault of a granularity in which no weight can take another's place."""
        if not chosen.granularity.swaps_weights:
            yield (
                f"{what} drops single weights for others, so `{prefix}granularity` must be "
                f"'weight' or n:m, such as '2:4', but is {chosen.values.get('granularity')!r}."
            )

    @classmethod
    def own_faults(cls, field: str, block: Mapping[str, Any]) -> Faults:
        """Yield the faults of ``drop_fraction``; a kind adds those of its other keys."""
        yield from drop_fraction_faults(field, block)


def drop_fraction_faults(field: str, block: Mapping[str, Any]) -> Faults:
    """Yield the fault of a ``drop_fraction`` that is no share of a layer's weights.

    Args:
        field: the schedule's mapping, in the message.
        block: that mapping as it was given.
    """
    fraction = block.get("drop_fraction", DropAndRegrow.defaults["drop_fraction"])
    constraint = "a number in (0, 1]"
    yield from number(f"{field}.drop_fraction", fraction, constraint, lambda x: 0 < x <= 1)
