"""``operation``: whether what is pruned is zero at once, or fades (soft pruning)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rayprune.pruning.checks import Faults, in_open_unit, must, whole
from rayprune.pruning.component import Chosen

MAX_FADING_UPDATES: Final = 255
"""What a byte counts."""


def faults(field: str, value: Any) -> Faults:
    """Yield what is wrong with it by itself."""
    if value == "zero":
        return
    if not isinstance(value, Mapping) or set(value) != {"scale", "steps"}:
        yield must(field, "'zero' or {scale: c, steps: k}", value)
        return
    if not in_open_unit(value["scale"]):
        yield must(f"{field}.scale", "in (0, 1)", value["scale"])
    constraint = f"an integer in [1, {MAX_FADING_UPDATES}]"
    yield from whole(f"{field}.steps", value["steps"], constraint, 1, MAX_FADING_UPDATES)


def conflicts(prefix: str, chosen: Chosen) -> Faults:
    """Yield the fault of what fades beside a schedule that prunes at once."""
    operation = chosen.values.get("operation", "zero")
    if chosen.schedule.in_rounds and operation != "zero":
        yield (
            f"`{prefix}operation` must be 'zero' with a {chosen.schedule_block['kind']} schedule, "
            f"whose rounds prune at once, but is {operation!r}."
        )
