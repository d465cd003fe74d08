"""The config's `evidence` block: its defaults, and every fault of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from numbers import Integral
from typing import Any

from rayprune.errors import did_you_mean
from rayprune.pruning.checks import choice_fault
from rayprune.pruning.criteria.information import ESTIMATORS
from rayprune.pruning.evidence.objectives import OBJECTIVES

EVIDENCE_DEFAULTS: Mapping[str, Any] = {
    "objective": "auto",
    "observations": 4096,
    "minibatches": 32,
    "estimator": "gaussian",
    "permutations": 32,
}

Faults = Iterator[str]


def evidence_faults(field: str, value: Any) -> Faults:
    """Yield the faults of the block by itself; a key that the criterion doesn't use is none.

    Args:
        field: its name in messages.
        value: what was given for it.
    """
    if not isinstance(value, Mapping):
        yield f"`{field}` must be a mapping of {sorted(EVIDENCE_DEFAULTS)}, but is {value!r}."
        return
    for key, given in value.items():
        if key not in _CHECKS:
            known = sorted(EVIDENCE_DEFAULTS)
            hint = did_you_mean(key, known) or f" Known are {known}."
            yield f"`{field}.{key}` is not a known key.{hint}"
        else:
            yield from _CHECKS[key](f"{field}.{key}", given)


def _one_of(names: Mapping[str, object]) -> Callable[[str, Any], Faults]:
    def check(field: str, value: Any) -> Faults:
        if not isinstance(value, str) or value not in names:
            yield choice_fault(field, value, names)

    return check


def _count(field: str, value: Any) -> Faults:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        yield f"`{field}` must be an integer of at least 1, but is {value!r}."


def _permutations(field: str, value: Any) -> Faults:
    yield from _count(field, value)
    if isinstance(value, Integral) and value % 2:
        yield (
            f"`{field}` must be even, since every order comes with its reverse, but is {value!r}."
        )


_CHECKS: Mapping[str, Callable[[str, Any], Faults]] = {
    "objective": _one_of(OBJECTIVES),
    "observations": _count,
    "minibatches": _count,
    "estimator": _one_of(ESTIMATORS),
    "permutations": _permutations,
}
