"""Faults of a schedule's own keys: rounds, gates, and a beginning that waits for a return."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

from rayprune.pruning.blocks.evidence import across_evidence
from rayprune.pruning.checks import choice_fault
from rayprune.pruning.criteria import CRITERIA
from rayprune.pruning.schedules.times import BEGAN, OWN_TIMES

COMMON_KEYS = ("kind", "begin", "end", "every")
GATE_KEYS = ("step", "least_step", "floor", "reference", "patience", "criteria")
REFERENCES = ("peak", "dense")

Faults = Iterator[str]


def schedule_keys(kind: str, own: set[str]) -> list[str]:
    """Return the keys that a schedule's mapping may have.

    Args:
        kind: its name.
        own: the fields of its class.
    """
    common = {"kind"} if kind in OWN_TIMES else set(COMMON_KEYS)
    gate = set(GATE_KEYS) if kind == "gated" else set()
    return sorted((own - {"final"}) | common | gate | ({BEGAN} if "begin" in own else set()))


def kind_faults(field: str, value: Mapping[str, Any]) -> Faults:
    """Yield the faults of the keys that only some kinds have."""
    kind = value.get("kind")
    begin = value.get("begin")
    if isinstance(begin, Mapping) and kind != "lottery" and not _is_return(begin):
        yield _must(f"{field}.begin", "a time or {return: R}", begin)
    if kind == "iterative" and "share" in value and not _in_open_unit(value["share"]):
        yield _must(f"{field}.share", "in (0, 1), of what is left", value["share"])
    elif kind == "lottery":
        yield from _lottery(field, value)
    elif kind == "gated":
        yield from _gated(field, value)


def kind_conflicts(prefix: str, values: Mapping[str, Any]) -> Faults:
    """Yield what contradicts a schedule elsewhere in the pruning block."""
    kind = _kind(values)
    if kind not in ("gated", "lottery"):
        return
    if values.get("operation", "zero") != "zero":
        yield (
            f"`{prefix}operation` must be 'zero' with a {kind} schedule, whose rounds prune at "
            f"once, but is {values['operation']!r}."
        )
    if kind == "gated":
        for name in dict.fromkeys(_other_criteria(values)):
            yield from across_evidence(prefix, {**values, "criterion": name})
    if kind == "gated" and values.get("threshold") is not None:
        yield (
            f"`{prefix}threshold` can't be used with a gated schedule, which steps from sparsity "
            f"to sparsity. Leave it out; `{prefix}sparsity` is an upper bound there."
        )


def _other_criteria(values: Mapping[str, Any]) -> list[Any]:
    listed = values["schedule"].get("criteria")
    if isinstance(listed, str) or not isinstance(listed, Sequence):
        return []
    return [name for name in listed if name != values.get("criterion", "l1")]


def finds_sparsity(values: Mapping[str, Any]) -> bool:
    """Whether a pruning block needs no target, because its schedule finds one."""
    return bool(_kind(values) == "gated")


def _kind(values: Mapping[str, Any]) -> Any:
    schedule = values.get("schedule")
    return schedule.get("kind") if isinstance(schedule, Mapping) else None


def _lottery(field: str, value: Mapping[str, Any]) -> Faults:
    if value.get("rewind_to") is None:
        yield (
            f"`{field}.rewind_to` is missing: the step whose weights a lottery ticket goes back "
            "to. Give 0 for the initialisation, or an early step such as 10000; or choose "
            "kind: iterative, which goes on from the weights that it has."
        )
    elif not _is_time(value["rewind_to"]):
        yield _must(f"{field}.rewind_to", "a number of at least 0", value["rewind_to"])
    rounds, length = value.get("rounds"), value.get("round_steps")
    if rounds is None:
        yield f"`{field}.rounds` is missing: how often a lottery ticket is pruned and rewound."
    elif not _is_count(rounds):
        yield _must(f"{field}.rounds", "an integer of at least 1", rounds)
    if length is not None and (not _is_time(length) or length == 0):
        yield _must(f"{field}.round_steps", "above 0 (above 1: env steps) or null", length)


def _gated(field: str, value: Mapping[str, Any]) -> Faults:
    begin = value.get("begin", 0.2)
    if not isinstance(begin, Mapping) and not _is_time(begin):
        yield _must(f"{field}.begin", "a number of at least 0 or {return: R}", begin)
    for key in ("step", "least_step"):
        if not _in_open_unit(value.get(key, 0.5)):
            yield _must(f"{field}.{key}", "in (0, 1), a share of what is left", value[key])
    floor, patience = value.get("floor", 1), value.get("patience", 1)
    if not _is_real(floor) or not 0 < floor <= 1:
        yield _must(f"{field}.floor", "in (0, 1], a share of the reference", floor)
    if not _is_time(patience) or patience == 0:
        yield _must(f"{field}.patience", "above 0 (above 1: env steps)", patience)
    reference = value.get("reference", "peak")
    if reference not in REFERENCES and not _is_real(reference):
        yield _must(f"{field}.reference", "'peak', 'dense' or a return", reference)
    yield from _criteria(f"{field}.criteria", value.get("criteria"))


def _criteria(field: str, value: Any) -> Faults:
    if value is None:
        return
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        yield _must(field, "a list of criteria or null", value)
        return
    for name in value:
        if not isinstance(name, str) or name not in CRITERIA:
            yield choice_fault(field, name, CRITERIA)


def _is_return(begin: Mapping[str, Any]) -> bool:
    return set(begin) == {"return"} and _is_real(begin["return"])


def _must(field: str, constraint: str, value: object) -> str:
    return f"`{field}` must be {constraint}, but is {value!r}."


def _is_real(value: object) -> bool:
    number = isinstance(value, Real) and not isinstance(value, bool)
    return number and abs(float(value)) < float("inf")  # type: ignore[arg-type]


def _is_time(value: Any) -> bool:
    return _is_real(value) and 0 <= value < 2**63


def _is_count(value: Any) -> bool:
    # A float that is whole is what JSON and Tune make of an integer.
    return _is_real(value) and value >= 1 and (isinstance(value, Integral) or value % 1 == 0)


def _in_open_unit(value: Any) -> bool:
    return _is_real(value) and 0 < value < 1
