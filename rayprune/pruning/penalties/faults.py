"""The penalties there are, and what a config may say of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rayprune.pruning.checks import choice_fault
from rayprune.pruning.granularity import find_granularity

PENALTIES: Mapping[str, str] = {
    "l1": "The sum of all weights' magnitudes: single weights go to zero.",
    "group_lasso": "The sum of all output units' norms, by the root of their size: units go.",
}
"""Name -> what it is, in a line."""


def penalty_faults(prefix: str, values: Mapping[str, Any]) -> Iterator[str]:
    """Yield the faults of a config's penalty.

    Args:
        prefix: what the field names start with in the messages.
        values: the mapping as it was given.
    """
    field, penalty = f"{prefix}penalty", values.get("penalty")
    if penalty is None:
        return
    if not isinstance(penalty, Mapping) or set(penalty) != {"kind", "strength"}:
        yield f"`{field}` must be {{kind: k, strength: x}} or null, but is {penalty!r}."
        return
    kind, strength = penalty["kind"], penalty["strength"]
    if not isinstance(kind, str) or kind not in PENALTIES:
        yield choice_fault(f"{field}.kind", kind, PENALTIES)
    if isinstance(strength, bool) or not isinstance(strength, (int, float)) or not strength >= 0:
        yield (
            f"`{field}.strength` must be a number of at least 0 (a step shrinks by the learning "
            f"rate times it), but is {strength!r}."
        )
    schedule = values.get("schedule")
    if isinstance(schedule, Mapping) and schedule.get("kind") == "static":
        yield (
            f"`{field}` shrinks what a mask update shall take, but a static mask never changes. "
            f"Leave it out, or take another `{prefix}schedule.kind`."
        )
    granularity = values.get("granularity", "weight")
    found = find_granularity(granularity)
    if kind == "group_lasso" and not (found and found.removes_units):
        yield (
            f"`{field}.kind` 'group_lasso' shrinks output units, so `{prefix}granularity` must be "
            f"'neuron', but is {granularity!r}. For single weights take kind 'l1'."
        )
