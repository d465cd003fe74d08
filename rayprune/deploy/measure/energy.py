"""Energy by the processor's own counters (RAPL), where Linux lets them be read."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PLACE: Final = Path("/sys/class/powercap")
_AT_LEAST_S: Final = 1.0
"""Counters move every millisecond or so: over a second that is nothing."""
_AT_ONCE: Final = 100


@dataclass(frozen=True, slots=True)
class _Counter:
    """A processor's counter in microjoules, which begins again after ``range``."""

    file: Path
    range: int

    def read(self) -> int:
        return int(self.file.read_text(encoding="ascii"))


def energy_of(
    call: Callable[[], object],
    *,
    place: Path = _PLACE,
    at_least_s: float = _AT_LEAST_S,
    clock: Callable[[], float] = time.perf_counter,
) -> float | None:
    """Return the microjoules of one call; None where no counter can be read.

    All that the processors took while it was called again and again counts: what else runs, too,
    and what they take when nothing does.

    Args:
        call: what is measured.
        place: where Linux keeps the counters.
        at_least_s: how long to measure.
        clock: seconds, monotonic.
    """
    counters = _counters(place)
    if not counters:
        return None
    call()
    begin, before, calls = clock(), [one.read() for one in counters], 0
    while clock() - begin < at_least_s:
        for _ in range(_AT_ONCE):
            call()
        calls += _AT_ONCE
    taken = [
        (one.read() - was) % (one.range + 1) for one, was in zip(counters, before, strict=True)
    ]
    return sum(taken) / calls


def has_counters(place: Path = _PLACE) -> bool:
    """Whether there is a counter that can be read."""
    return bool(_counters(place))


def _counters(place: Path) -> list[_Counter]:
    """Return the counter of each package; its parts are counted in it."""
    found = []
    for folder in sorted(place.glob("intel-rapl:*")):
        if folder.name.count(":") > 1:
            continue
        try:
            limit = int((folder / "max_energy_range_uj").read_text(encoding="ascii"))
            counter = _Counter(folder / "energy_uj", limit)
            counter.read()
        except (OSError, ValueError):  # only root may, on most machines
            continue
        found.append(counter)
    return found
