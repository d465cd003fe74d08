"""``compact_every``: how often networks that are trained shrink, and what can't follow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rayprune.pruning.checks import Faults, is_integer, must
from rayprune.pruning.component import Chosen


def faults(field: str, value: Any) -> Faults:
    """Yield what is wrong with it by itself; None never compacts."""
    if value is not None and (not is_integer(value) or value < 1):
        yield must(field, "an integer of at least 1 (env steps) or null", value)


def conflicts(prefix: str, chosen: Chosen) -> Faults:
    """Yield what doesn't go with networks that shrink in mid-training."""
    values = chosen.values
    if values.get("compact_every") is None:
        return
    way_out = f"leave `{prefix}compact_every` out"
    if not chosen.granularity.removes_units:
        yield (
            f"`{prefix}compact_every` needs a `{prefix}granularity` that removes whole units, "
            f"'neuron', 'head' or 'hybrid', but it is {chosen.granularity_name!r}. Take one of "
            f"these, or {way_out}."
        )
    if chosen.schedule.undoes:
        yield (
            f"`{prefix}schedule.kind` {chosen.schedule_block['kind']!r} {chosen.schedule.undoes}, "
            "which a network that has shrunk can't follow. Take 'cubic' or another kind that only "
            f"prunes, or {way_out}."
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
