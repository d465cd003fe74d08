"""``max_kl`` and ``max_value_change``: how far one mask update may move a policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rayprune.pruning.checks import Faults, is_finite, must
from rayprune.pruning.component import Chosen

FIELDS: Final[Mapping[str, str]] = {
    "max_kl": "a number above 0 (nats) or null",
    "max_value_change": "a number above 0 (a share of the values' standard deviation) or null",
}
"""The fields, with what they must be."""


def faults(field: str, value: Any) -> Faults:
    """Yield what is wrong with it by itself; None bounds nothing."""
    if value is not None and not (is_finite(value) and value > 0):
        yield must(field, FIELDS[field.rpartition(".")[2]], value)


def conflicts(prefix: str, chosen: Chosen) -> Faults:
    """Yield what can't be taken in part."""
    for name in FIELDS:
        if chosen.values.get(name) is not None:
            yield from _conflicts(f"`{prefix}{name}`", prefix, chosen)


def _conflicts(field: str, prefix: str, chosen: Chosen) -> Faults:
    why, kind = _why_not(chosen), chosen.schedule_block.get("kind")
    if why:
        yield (
            f"{field} can't be had with `{prefix}schedule.kind` {kind!r}, {why}. Leave it out, or "
            "take 'cubic' or another kind that prunes a trained policy step by step."
        )
    if isinstance(chosen.values.get("operation"), Mapping):
        yield (
            f"{field} needs `{prefix}operation` 'zero': what has begun to fade goes on, however "
            "far it moves the policy. Leave one of the two out."
        )


def _why_not(chosen: Chosen) -> str:
    """Return why a schedule's steps can't be taken in part; empty where they can."""
    schedule = chosen.schedule
    if schedule.fixed:
        return "whose masks never change"
    if schedule.measures_first:
        return "which prunes before there is a policy to keep"
    if schedule.rewinds:
        return "which goes back to early weights after each round, and so leaves the policy anyway"
    if schedule.competes:
        return "which takes another network in the policy's place at each mask update"
    return ""
