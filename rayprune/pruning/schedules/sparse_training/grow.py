"""Growth: from a sparse start down to the target, weights only come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from rayprune.pruning.checks import Faults, choice, count, is_number, number
from rayprune.pruning.component import Chosen
from rayprune.pruning.schedules.sparse_training.sparse_from_start import (
    GRADIENT,
    REGROW,
    SparseSchedule,
)


# No slots: with them `super()` would not know the class that the decorator makes anew.
@dataclass(frozen=True, kw_only=True)
class GrowSchedule(SparseSchedule):
    """From a random mask sparser than the target down to the target, along a straight line.

    A target of 0 means a dense network from the start, as it does with every schedule.

    >>> growth = GrowSchedule(final=0.8, start=0.9, begin=0, end=100)
    >>> [round(growth.sparsity_at(step), 4) for step in (0, 50, 100, 500)]
    [0.9, 0.85, 0.8, 0.8]
    """

    defaults: ClassVar[Mapping[str, Any]] = {"start": 0.98, "regrow": GRADIENT, "minibatches": 100}
    grows: ClassVar[bool] = True
    grows_to_target: ClassVar[bool] = True

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

    @classmethod
    def own_faults(cls, field: str, block: Mapping[str, Any]) -> Faults:
        """Yield the faults of ``start``, ``minibatches`` and ``regrow``."""
        start = block.get("start", cls.defaults["start"])
        yield from number(f"{field}.start", start, "a number in [0, 1)", lambda x: 0 <= x < 1)
        yield from count(f"{field}.minibatches", block.get("minibatches", 1))
        yield from choice(REGROW)(f"{field}.regrow", block.get("regrow", GRADIENT))

    @classmethod
    def conflicts(cls, prefix: str, chosen: Chosen) -> Faults:
        """Yield what can't go with growth, and targets that are sparser than ``start``."""
        yield from super().conflicts(prefix, chosen)
        start = chosen.schedule_block.get("start", cls.defaults["start"])
        for field, target in _targets(prefix, chosen).items():
            if is_number(start) and is_number(target) and start < target:
                yield (
                    f"`{prefix}schedule.start` must not be below `{field}` ({target}), which a net "
                    f"grows to from it, but is {start}."
                )


def _targets(prefix: str, chosen: Chosen) -> dict[str, Any]:
    """Return every sparsity that a config names, by its field."""
    targets = {f"{prefix}sparsity": chosen.values.get("sparsity")}
    layers = chosen.values.get("distribution")
    targets |= {
        f"{prefix}groups.{name}.sparsity": budget.get("sparsity") for name, budget in chosen.groups
    }
    if isinstance(layers, Mapping):
        targets |= {f"{prefix}distribution.{name}": target for name, target in layers.items()}
    return targets
