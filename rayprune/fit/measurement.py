"""A file's figures on a target, measured anew where a busy machine may be to blame."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rayprune.deploy.targets.base import Measurement, Target
from rayprune.fit.budgets import BUDGETS, Budgets, figures_of
from rayprune.fit.quantities import TIME

ATTEMPTS: Final = 3
"""Measurements at most where nothing but a time is exceeded."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What a file takes, by the attempt that used the least of its tightest budget."""

    measurement: Measurement
    figures: dict[str, float | None]
    attempts: tuple[dict[str, float | None], ...]
    """The times of all attempts: what else runs on a machine can only make them longer."""

    def to_dict(self) -> dict[str, Any]:
        """Return the plain dict of the measurement, with all attempts where there were several."""
        told = self.measurement.to_dict()
        return {**told, "attempts": list(self.attempts)} if len(self.attempts) > 1 else told


def measure(target: Target, file: Path, budgets: Budgets, parameters: int) -> Measured:
    """Measure a file; up to three times while it misses budgets on time alone.

    Args:
        target: where.
        file: what `export_policy` wrote.
        budgets: what it shall keep to.
        parameters: of the file that aren't zero.

    Raises:
        InputError: it can't be measured there.
    """
    found: list[tuple[Measurement, dict[str, float | None]]] = []
    while len(found) < ATTEMPTS:
        measured = target.measure(file)
        found.append((measured, figures_of(measured, parameters)))
        over = [use for use in budgets.uses(found[-1][1]) if not use.met]
        if not over or any(BUDGETS[use.name].quantity is not TIME for use in over):
            break
    best = min(found, key=lambda one: budgets.worst_share(one[1]))
    times = tuple({key: one[key] for key in ("p50_us", "p99_us")} for _, one in found)
    return Measured(*best, times)
