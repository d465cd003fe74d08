"""What every schedule's own fields must obey."""

from __future__ import annotations

from rayprune.errors import ConfigError


def check_schedule(final: float, begin: float, end: float, *faults: str) -> None:
    """Raise ConfigError with ``faults`` and those of the fields that all schedules have."""
    found = [fault for fault in faults if fault]
    if not 0.0 <= final < 1.0:
        found.append(f"`final` must be in [0, 1), but is {final}.")
    if begin < 0:
        found.append(f"`begin` must be at least 0, but is {begin}.")
    if end < begin:
        found.append(f"`end` must not be less than `begin` ({begin}), but is {end}.")
    if found:
        raise ConfigError(found)
