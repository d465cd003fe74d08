"""Faults of a config that lets weights grow, each with the way out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from numbers import Integral, Real
from typing import Any

from rayprune.pruning.checks import choice_fault
from rayprune.pruning.schedules.sparse import DEFAULTS, REGROW

DYNAMIC = ("set", "rigl", "grow")


def sparse_schedule_faults(field: str, schedule: Mapping[str, Any]) -> Iterator[str]:
    """Yield the faults of the keys that only these schedules have.

    Args:
        field: the schedule's name in the messages.
        schedule: the mapping as it was given.
    """
    if schedule.get("kind") == "static" and isinstance(schedule.get("begin"), Mapping):
        yield f"`{field}.begin` must be left out: a static mask is there from the start."
    if str(schedule.get("kind")) not in DYNAMIC:
        return
    fraction, start = schedule.get("drop_fraction", 0.3), schedule.get("start", 0.98)
    if not _is_real(fraction) or not 0 < fraction <= 1:
        yield f"`{field}.drop_fraction` must be a number in (0, 1], but is {fraction!r}."
    if not _is_real(start) or not 0 <= start < 1:
        yield f"`{field}.start` must be a number in [0, 1), but is {start!r}."
    minibatches = schedule.get("minibatches", 1)
    if isinstance(minibatches, bool) or not isinstance(minibatches, Integral) or minibatches < 1:
        yield f"`{field}.minibatches` must be an integer of at least 1, but is {minibatches!r}."
    regrow = schedule.get("regrow", REGROW[0])
    if regrow not in REGROW:
        yield choice_fault(f"{field}.regrow", regrow, list(REGROW))


def regrowth_faults(prefix: str, values: Mapping[str, Any]) -> Iterator[str]:
    """Yield what doesn't go with regrowth elsewhere in a config.

    Args:
        prefix: what the field names start with in the messages.
        values: the mapping as it was given.
    """
    schedule = values.get("schedule")
    kind = str(schedule.get("kind")) if isinstance(schedule, Mapping) else ""
    if kind in DEFAULTS:
        yield from _with_kind(prefix, kind, values)
    if kind in DYNAMIC:
        yield from _by_weight(f"`{prefix}schedule.kind` {kind!r}", prefix, values)
    if kind == "grow":
        yield from _start_faults(prefix, values)
    if values.get("on_clone") == "regrow":
        yield from _by_weight(f"`{prefix}on_clone` 'regrow'", prefix, values)
        if isinstance(values.get("operation"), Mapping):
            yield (
                f"`{prefix}operation` must be 'zero' with `{prefix}on_clone` 'regrow': what still "
                f"fades can't grow back. Or leave `{prefix}on_clone` at 'hold'."
            )
        if values.get("threshold") is not None:
            yield (
                f"`{prefix}on_clone` 'regrow' needs a target to regrow to, but `{prefix}threshold` "
                f"gives none. Give `{prefix}sparsity`, or leave it at 'hold'."
            )


def _with_kind(prefix: str, kind: str, values: Mapping[str, Any]) -> Iterator[str]:
    if values.get("threshold") is not None:
        yield (
            f"`{prefix}schedule.kind` {kind!r} starts at a sparsity, so `{prefix}threshold` can't "
            f"go with it. Give `{prefix}sparsity`, or another kind, such as 'cubic'."
        )
    operation = values.get("operation", "zero")
    if isinstance(operation, Mapping):
        yield (
            f"`{prefix}operation` must be 'zero' with `{prefix}schedule.kind` {kind!r}, "
            f"but is {dict(operation)!r}: its weights are off from the start, or go for others."
        )


def _by_weight(what: str, prefix: str, values: Mapping[str, Any]) -> Iterator[str]:
    granularity = values.get("granularity", "weight")
    if granularity != "weight":
        yield (
            f"{what} grows single weights, so `{prefix}granularity` must be 'weight', "
            f"but is {granularity!r}."
        )


def _start_faults(prefix: str, values: Mapping[str, Any]) -> Iterator[str]:
    start = values["schedule"].get("start", DEFAULTS["grow"]["start"])
    targets = {f"{prefix}sparsity": values.get("sparsity")}
    groups, layers = values.get("groups"), values.get("distribution")
    if isinstance(groups, Mapping):
        targets |= {
            f"{prefix}groups.{name}.sparsity": budget.get("sparsity")
            for name, budget in groups.items()
            if isinstance(budget, Mapping)
        }
    if isinstance(layers, Mapping):
        targets |= {f"{prefix}distribution.{name}": target for name, target in layers.items()}
    for field, target in targets.items():
        if _is_real(start) and _is_real(target) and start < target:
            yield (
                f"`{prefix}schedule.start` must not be below `{field}` ({target}), which a net "
                f"grows to from it, but is {start}."
            )


def _is_real(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, Real) and value == value
