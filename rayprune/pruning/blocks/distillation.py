"""Faults of the `distillation` block, and what it has where it says nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from numbers import Real
from typing import Any

from rayprune.errors import did_you_mean
from rayprune.pruning.schedules import schedule_of

DEFAULTS: Mapping[str, Any] = {"weight": 1.0, "from": None, "temperature": 1.0}


def distillation_faults(field: str, value: Any) -> Iterator[str]:
    """Yield the faults of the block; None is no distillation."""
    if value is None:
        return
    if not isinstance(value, Mapping):
        yield f"`{field}` must be null or {{weight, from, temperature}}, but is {value!r}."
        return
    for key in value:
        if key not in DEFAULTS:
            hint = did_you_mean(key, DEFAULTS) or f" Known are {sorted(DEFAULTS)}."
            yield f"`{field}.{key}` is not a known key.{hint}"
    for key in ("weight", "temperature"):
        number = value.get(key, 1.0)
        real = isinstance(number, Real) and not isinstance(number, bool)
        if not real or not 0 < number < float("inf"):
            yield f"`{field}.{key}` must be a number above 0, but is {number!r}."
    source = value.get("from")
    if source is not None and (not isinstance(source, str) or not source):
        yield f"`{field}.from` must be null, 'start' or a checkpoint's path, but is {source!r}."


def teacher_faults(prefix: str, values: Mapping[str, Any]) -> Iterator[str]:
    """Yield the fault of a teacher that there will never be."""
    block, schedule = values.get("distillation"), values.get("schedule")
    if not isinstance(block, Mapping) or not isinstance(schedule, Mapping):
        return
    kind = schedule.get("kind")
    if block.get("from") is None and schedule_of(schedule).sparse_from_start:
        yield (
            f"`{prefix}distillation.from` must be a checkpoint with a {kind} schedule, which never "
            "has a dense policy of its own."
        )
