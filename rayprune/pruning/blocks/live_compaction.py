"""Faults of a config that compacts networks in mid-training, each with the way out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from numbers import Integral
from typing import Any

from rayprune.pruning.granularity import find_granularity
from rayprune.pruning.schedules import schedule_of


def compact_every(field: str, value: Any) -> Iterator[str]:
    """Yield the faults of the field alone."""
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if value is not None and not (whole and value >= 1):
        yield f"`{field}` must be an integer of at least 1 (env steps) or null, but is {value!r}."


def across(prefix: str, values: Mapping[str, Any]) -> Iterator[str]:
    """Yield what doesn't go with live compaction elsewhere in a config.

    Args:
        prefix: what the field names start with in the messages.
        values: the mapping as it was given.
    """
    if values.get("compact_every") is None:
        return
    way_out = f"leave `{prefix}compact_every` out"
    granularity = values.get("granularity", "weight")
    found = find_granularity(granularity)
    if not (found and found.removes_units):
        yield (
            f"`{prefix}compact_every` needs a `{prefix}granularity` that removes whole units, "
            f"'neuron' or 'hybrid', but it is {granularity!r}. Take one of these, or {way_out}."
        )
    schedule = schedule_of(values.get("schedule"))
    if schedule.undoes:
        yield (
            f"`{prefix}schedule.kind` {values['schedule']['kind']!r} {schedule.undoes}, which a "
            "network that has shrunk can't follow. Take 'cubic' or another kind that only prunes, "
            f"or {way_out}."
        )
    if values.get("on_clone") == "regrow":
        yield (
            f"`{prefix}on_clone` 'regrow' needs weights that are gone after a compaction. Leave it "
            f"at 'hold', or {way_out}."
        )
    threshold = values.get("threshold")
    if isinstance(threshold, Mapping) and set(threshold) - {"absolute"}:
        yield (
            f"`{prefix}threshold` {dict(threshold)!r} counts what is pruned already among its "
            f"scores, where nothing is left of it after a compaction. Give `{prefix}sparsity` or "
            f"{{absolute: x}}, or {way_out}."
        )
