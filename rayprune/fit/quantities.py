"""Quantities with units, as people write them: ``1ms``, ``64KB``, ``20000``."""

from __future__ import annotations

import math
import re
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from rayprune.errors import shown
from rayprune.pruning.checks import is_finite

_WRITTEN: Final = re.compile(
    r"\s*((?:[0-9][0-9_]*\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)\s*([A-Za-zµμ]*)\s*"
)


@dataclass(frozen=True, slots=True)
class Quantity:
    """What is measured in the same units.

    >>> [SIZE.value_of(text) for text in ("64KB", "16 KiB", 500)]
    [65536.0, 16384.0, 500.0]
    >>> TIME.value_of("1ms"), TIME.text(20.0), SIZE.text(16384)
    (1000.0, '20 µs', '16,384 B')
    >>> TIME.value_of("20 µs"), ENERGY.value_of("5µJ")
    (20.0, 5.0)
    >>> TIME.fault("fit.deadline", 5)
    '`fit.deadline` must be a positive time with its unit, such as 1ms, but is 5. Known are us, ...'
    """

    name: str
    units: Mapping[str, float]
    """Unit, in small letters -> how many of the base unit."""
    base: str
    """How the base unit is written; empty for counts."""
    example: str
    bare: bool = True
    """Whether a number without a unit is in the base unit."""

    def value_of(self, given: object) -> float | None:
        """Return what is meant in the base unit; None where that isn't clear."""
        if is_finite(given):
            return float(given) if self.bare else None  # type: ignore[arg-type]
        match = _WRITTEN.fullmatch(given) if isinstance(given, str) else None
        if match is None:
            return None
        number, unit = float(match[1].replace("_", "")), match[2].lower().replace("μ", "µ")
        if not unit:
            return number if self.bare else None
        return number * self.units[unit] if unit in self.units else None

    def fault(self, field: str, given: object) -> str | None:
        """Return what is wrong with a limit, None where nothing is."""
        value = self.value_of(given)
        if value is not None and 0 < value < math.inf:
            return None
        known = f" Known are {', '.join(self.units)}." if self.units else ""
        wanted = f"a positive {self.name}{'' if self.bare else ' with its unit'}"
        return f"`{field}` must be {wanted}, such as {self.example}, but is {shown(given)}.{known}"

    def text(self, value: float) -> str:
        """Return a value as people read it, in the base unit."""
        digits = f"{value:,.0f}" if value == int(value) or value >= 1000 else f"{value:.4g}"
        return f"{digits} {self.base}".rstrip()


def _units(**units: float) -> Mapping[str, float]:
    # Of the micro sign Python's names make the Greek letter, so that no keyword can hold it.
    whole = {"µ" + unit[1:]: of for unit, of in units.items() if unit[0] == "u"}
    return types.MappingProxyType({**units, **whole})


TIME: Final = Quantity("time", _units(us=1.0, ns=1e-3, ms=1e3, s=1e6), "µs", "1ms", bare=False)
SIZE: Final = Quantity(
    # As data sheets of microcontrollers count: 64 KB of flash are 65,536 bytes.
    "size",
    _units(b=1.0, kb=1024.0, kib=1024.0, mb=1024.0**2, mib=1024.0**2),
    "B",
    "64KB",
)
COUNT: Final = Quantity("count", _units(k=1e3, m=1e6), "", "20000")
ENERGY: Final = Quantity("energy", _units(uj=1.0, nj=1e-3, mj=1e3, j=1e6), "µJ", "5uJ", bare=False)
