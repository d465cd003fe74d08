"""Sparse training from the start: what static masks, SET, RigL and growth share.

All start from a random mask. What they may do to it later is drop weights and regrow as many in
the same layer (SET, RigL), or only grow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from rayprune.pruning.checks import Faults
from rayprune.pruning.component import Chosen
from rayprune.pruning.schedules.base import Span, check_schedule

RANDOM: Final = "random"
GRADIENT: Final = "gradient"
REGROW: Final = (GRADIENT, RANDOM)
"""How the weights that grow back are chosen: by the size of their dense gradient, or by chance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SparseSchedule(Span):
    """Sparse from the start, and no change of the masks unless a kind says so."""

    defaults: ClassVar[Mapping[str, Any]] = {"begin": 0.0, "end": 0.75}
    sparse_from_start: ClassVar[bool] = True
    undoes: ClassVar[str] = "is sparse from the start or lets weights grow back"
    grows_to_target: ClassVar[bool] = False
    """Whether weights grow until the target is met, beside those that replace dropped ones."""

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

    @classmethod
    def faults(cls, field: str, block: Mapping[str, Any]) -> Faults:
        """Yield what is wrong with its keys."""
        yield from cls.begin_faults(field, block)
        yield from cls.time_faults(field, block)
        yield from cls.own_faults(field, block)

    @classmethod
    def conflicts(cls, prefix: str, chosen: Chosen) -> Faults:
        """Yield what can't go with masks that are there from the start, or with growth."""
        what = f"`{prefix}schedule.kind` {chosen.schedule_block.get('kind')!r}"
        if chosen.values.get("threshold") is not None:
            yield (
                f"{what} starts at a sparsity, so `{prefix}threshold` can't "
                f"go with it. Give `{prefix}sparsity`, or another kind, such as 'cubic'."
            )
        operation = chosen.values.get("operation")
        if isinstance(operation, Mapping):
            yield (
                f"`{prefix}operation` must be 'zero' with {what}, "
                f"but is {dict(operation)!r}: its weights are off from the start, or go for others."
            )
        if cls.grows:
            yield from cls.growth_faults(what, prefix, chosen)

    @classmethod
    def growth_faults(cls, what: str, prefix: str, chosen: Chosen) -> Faults:
        """Yield the fault of growth that the granularity doesn't allow."""
        yield from weight_faults(what, prefix, chosen)


def weight_faults(what: str, prefix: str, chosen: Chosen) -> Faults:
    """Yield the fault of growth where single weights can't grow.

    Args:
        what: what lets them grow.
        prefix: what the field names start with in the messages.
        chosen: the whole config.
    """
    if not chosen.granularity.single_weights:
        yield (
            f"{what} grows single weights, so `{prefix}granularity` must be 'weight', "
            f"but is {chosen.values.get('granularity')!r}."
        )
