"""Budgets: what an action of the policy may take, and whether what was measured keeps to it."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from rayprune.deploy.targets.base import Measurement, Target
from rayprune.errors import ConfigError
from rayprune.fit.quantities import COUNT, ENERGY, SIZE, TIME, Quantity

Figures: TypeAlias = Mapping[str, float | None]
"""What was measured of a file, by the names of `Budget.figure`; None: not measured."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Something that may be limited."""

    quantity: Quantity
    figure: str
    """What is held against the limit."""
    field: str | None
    """Where a target's `Measurement` has it; None: it is counted, whatever the target."""
    line: str
    """What it is, for people."""


BUDGETS: Final[Mapping[str, Budget]] = types.MappingProxyType(
    {
        "deadline": Budget(TIME, "p99_us", "latency_us", "what 99 of 100 actions take at most"),
        "p99": Budget(TIME, "p99_us", "latency_us", "the 99th percentile of an action's time"),
        "latency": Budget(TIME, "p50_us", "latency_us", "the median of an action's time"),
        "flash": Budget(SIZE, "flash_bytes", "flash_bytes", "code and constants"),
        "ram": Budget(SIZE, "ram_bytes", "ram_bytes", "memory beside them, the stack included"),
        "instructions": Budget(COUNT, "instructions", "instructions", "of one action"),
        "parameters": Budget(COUNT, "parameters", None, "of the exported policy, not zero"),
        "energy": Budget(ENERGY, "energy_uj", "energy_uj", "of one action"),
    }
)
"""Keys of the `fit` block, and options of `rayprune fit`."""


def figures_of(measured: Measurement, parameters: int) -> dict[str, float | None]:
    """Return a measurement's figures, by the names that budgets go by.

    Args:
        measured: on a target.
        parameters: of the exported policy that aren't zero.
    """
    latency = measured.latency_us
    return {
        "p50_us": None if latency is None else latency.p50,
        "p99_us": None if latency is None else latency.p99,
        "flash_bytes": measured.flash_bytes,
        "ram_bytes": measured.ram_bytes,
        "instructions": measured.instructions,
        "energy_uj": measured.energy_uj,
        "parameters": parameters,
    }


@dataclass(frozen=True, slots=True)
class Use:
    """How much of one budget a file uses."""

    name: str
    limit: float
    measured: float | None

    @property
    def share(self) -> float | None:
        """The measured figure as a share of the limit; above 1 it is exceeded."""
        return None if self.measured is None else self.measured / self.limit

    @property
    def met(self) -> bool:
        """Whether it was measured, and keeps to the limit."""
        return self.measured is not None and self.measured <= self.limit

    @property
    def text(self) -> str:
        """Return ``flash 21,400 B of 16,384 B``."""
        quantity = BUDGETS[self.name].quantity
        found = "not measured" if self.measured is None else quantity.text(self.measured)
        return f"{self.name} {found} of {quantity.text(self.limit)}"

    def to_dict(self) -> dict[str, Any]:
        """Return the plain dict, for JSON."""
        return {
            "budget": self.name,
            "what": BUDGETS[self.name].line,
            "unit": BUDGETS[self.name].quantity.base,
            "limit": self.limit,
            "measured": self.measured,
            "share": self.share,
            "met": self.met,
        }


@dataclass(frozen=True, slots=True)
class Budgets:
    """The limits that were given.

    >>> asked = Budgets({"flash": 16384.0, "parameters": 2000.0})
    >>> found = {"flash_bytes": 20000.0, "parameters": 1500.0}
    >>> asked.met(found), asked.tightest(found).text
    (False, 'flash 20,000 B of 16,384 B')
    """

    limits: Mapping[str, float]
    """Name -> limit, in the base unit of its quantity."""

    def uses(self, figures: Figures) -> list[Use]:
        """Return how much a file uses of each budget."""
        return [
            Use(name, limit, figures.get(BUDGETS[name].figure))
            for name, limit in self.limits.items()
        ]

    def met(self, figures: Figures) -> bool:
        """Whether a file keeps to every limit."""
        return all(use.met for use in self.uses(figures))

    def tightest(self, figures: Figures) -> Use:
        """Return the budget of which a file uses the greatest share; what isn't measured first."""
        return max(self.uses(figures), key=lambda use: _weight(use.share))

    def worst_share(self, figures: Figures) -> float:
        """Return that share; infinite where a figure is missing."""
        return _weight(self.tightest(figures).share)

    def exceeded(self, least: Figures) -> Use | None:
        """Return the budget that lower bounds exceed the most; None where they exceed none."""
        over = [use for use in self.uses(least) if use.share is not None and use.share > 1]
        return max(over, key=lambda use: _weight(use.share), default=None)

    def check_reported(self, target: Target) -> None:
        """Refuse budgets on what a target can't tell.

        Raises:
            ConfigError: names each with a way out.
        """
        faults = list(self._unreported(target))
        if faults:
            raise ConfigError(faults)

    def _unreported(self, target: Target) -> Iterator[str]:
        kept = [n for n, b in BUDGETS.items() if b.field is None or b.field in target.reports]
        for name in self.limits:
            if name not in kept:
                yield (
                    f"`fit.{name}` can't be measured on target {target.name!r}, which can be held "
                    f"to {_listed(kept)}. Drop it, or choose another `fit.target`."
                )


def _weight(share: float | None) -> float:
    return float("inf") if share is None else share


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
