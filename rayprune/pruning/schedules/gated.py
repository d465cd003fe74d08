"""Return-gated pruning: as sparse as the return allows, found by a driver."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from rayprune.pruning.checks import Faults, choice, in_open_unit, is_finite, is_time, must, number
from rayprune.pruning.criteria import CRITERIA
from rayprune.pruning.schedules.base import Schedule, check_schedule

REFERENCES: Final = ("peak", "dense")
"""What a return is held against, beside a return of the user's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatedSchedule(Schedule):
    """As sparse as a driver has decided so far: ``min(level, final)`` from ``begin`` on.

    `rayprune.pruning.schedules.gate_decisions` raises ``level`` while the return holds.
    What else the YAML gives a gated schedule (``step``, ``floor``, ...) is for it.

    >>> gate = GatedSchedule(final=0.9, begin=100, level=0.36)
    >>> [gate.sparsity_at(step) for step in (99, 100, 500)], gate.end
    ([0.0, 0.36, 0.36], inf)
    """

    defaults: ClassVar[Mapping[str, Any]] = {
        "begin": 0.2,
        "step": 0.2,
        "least_step": 0.05,
        "floor": 0.95,
        "reference": "peak",
        "patience": 0.1,
        "criteria": None,
    }
    times: ClassVar[tuple[str, ...]] = ("begin", "patience")
    in_rounds: ClassVar[bool] = True
    finds_sparsity: ClassVar[bool] = True
    undoes: ClassVar[str] = "rolls back to denser masks"

    final: float
    begin: float
    level: float = 0.0

    def __post_init__(self) -> None:
        check_schedule(self.final, self.begin, self.end)

    @property
    def end(self) -> float:
        """``begin`` once there is nothing more to prune, and never until then."""
        return self.begin if self.level >= self.final else math.inf

    def sparsity_at(self, step: float) -> float:
        """Return 0 before ``begin``, and the level, ``final`` at most, from it on."""
        return min(self.level, self.final) if step >= self.begin else 0.0

    @classmethod
    def own_faults(cls, field: str, block: Mapping[str, Any]) -> Faults:
        """Yield what is wrong with the keys that the driver reads."""
        given = {**cls.all_defaults(), **block}
        if not isinstance(given["begin"], Mapping) and not is_time(given["begin"]):
            yield must(f"{field}.begin", "a number of at least 0 or {return: R}", given["begin"])
        for key in ("step", "least_step"):
            if not in_open_unit(given[key]):
                yield must(f"{field}.{key}", "in (0, 1), a share of what is left", given[key])
        share = "in (0, 1], a share of the reference"
        yield from number(f"{field}.floor", given["floor"], share, lambda x: 0 < x <= 1)
        if not (is_time(given["patience"]) and given["patience"] > 0):
            yield must(f"{field}.patience", "above 0 (above 1: env steps)", given["patience"])
        if given["reference"] not in REFERENCES and not is_finite(given["reference"]):
            yield must(f"{field}.reference", "'peak', 'dense' or a return", given["reference"])
        if given["criteria"] is not None:
            yield from _criteria_faults(f"{field}.criteria", given["criteria"])

    @classmethod
    def criteria_in(cls, block: Mapping[str, Any]) -> list[Any]:
        """Return the criteria that are tried in turn."""
        names = block.get("criteria")
        return [] if isinstance(names, str) or not isinstance(names, Sequence) else list(names)


def _criteria_faults(field: str, value: Any) -> Faults:
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        yield must(field, "a list of criteria or null", value)
        return
    for name in value:
        yield from choice(CRITERIA)(field, name)
