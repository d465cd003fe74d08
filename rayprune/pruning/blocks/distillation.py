"""``distillation``: a KL term to a frozen policy, and how much of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rayprune.pruning.checks import Faults, must, number, unknown_keys
from rayprune.pruning.component import Chosen

DEFAULTS: Final[Mapping[str, Any]] = {"weight": 1.0, "from": None, "temperature": 1.0}


def faults(field: str, value: Any) -> Faults:
    """Yield what is wrong with it by itself; None is no distillation."""
    if value is None:
        return
    if not isinstance(value, Mapping):
        yield must(field, "null or {weight, from, temperature}", value)
        return
    yield from unknown_keys(field, value, DEFAULTS)
    for key in ("weight", "temperature"):
        above = "a number above 0"
        yield from number(
            f"{field}.{key}", value.get(key, 1.0), above, lambda x: 0 < x < float("inf")
        )
    source = value.get("from")
    if source is not None and (not isinstance(source, str) or not source):
        yield must(f"{field}.from", "null, 'start' or a checkpoint's path", source)


def conflicts(prefix: str, chosen: Chosen) -> Faults:
    """Yield the fault of a teacher that there will never be."""
    block = chosen.values.get("distillation")
    teacherless = isinstance(block, Mapping) and block.get("from") is None
    if teacherless and chosen.schedule.sparse_from_start:
        yield (
            f"`{prefix}distillation.from` must be a checkpoint with a "
            f"{chosen.schedule_block['kind']} schedule, which never has a dense policy of its own."
        )
