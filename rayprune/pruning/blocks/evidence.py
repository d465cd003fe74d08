"""``evidence``: what criteria go by that need data, and how much of it."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from typing import Any, Final

from rayprune.pruning.checks import Check, Faults, choice, count, must, unknown_keys
from rayprune.pruning.criteria.information import ESTIMATORS
from rayprune.pruning.evidence.objectives import OBJECTIVES

DEFAULTS: Final[Mapping[str, Any]] = {
    "objective": "auto",
    "observations": 4096,
    "minibatches": 32,
    "estimator": "gaussian",
    "permutations": 32,
}


def faults(field: str, value: Any) -> Faults:
    """Yield what is wrong with it by itself; a key that the criterion doesn't use is no fault."""
    if not isinstance(value, Mapping):
        yield must(field, f"a mapping of {sorted(DEFAULTS)}", value)
        return
    for key, given in value.items():
        if key in _CHECKS:
            yield from _CHECKS[key](f"{field}.{key}", given)
        else:
            yield from unknown_keys(field, {key: given}, DEFAULTS)


def _permutations(field: str, value: Any) -> Faults:
    yield from count(field, value)
    if isinstance(value, Integral) and value % 2:
        yield must(field, "even, since every order comes with its reverse", value)


_CHECKS: Final[Mapping[str, Check]] = {
    "objective": choice(OBJECTIVES),
    "observations": count,
    "minibatches": count,
    "estimator": choice(ESTIMATORS),
    "permutations": _permutations,
}
