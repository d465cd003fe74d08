"""The config's `evidence` block: its defaults, and every fault of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from numbers import Integral
from typing import Any

from rayprune.errors import did_you_mean
from rayprune.pruning.checks import choice_fault
from rayprune.pruning.criteria import CRITERIA, evidence_for, scores_units
from rayprune.pruning.criteria.information import ESTIMATORS
from rayprune.pruning.evidence.objectives import OBJECTIVES
from rayprune.pruning.granularity import find_granularity

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


def across_evidence(prefix: str, values: Mapping[str, Any]) -> Faults:
    """Yield the faults between the criterion, the granularity and the objective.

    Args:
        prefix: what field names start with.
        values: the config's.
    """
    criterion = values.get("criterion", "l1")
    if not isinstance(criterion, str) or criterion not in CRITERIA:
        return
    wanted = evidence_for(criterion)
    granularity = values.get("granularity", "weight")
    found = find_granularity(granularity)
    if scores_units(criterion) and not (found and found.removes_units):
        yield (
            f"`{prefix}criterion` {criterion!r} scores units, but `{prefix}granularity` is "
            f"{granularity!r}. Set it to 'neuron', or take a criterion of weights such as 'fisher'."
        )
    block = values.get("evidence")
    objective = block.get("objective", "auto") if isinstance(block, Mapping) else "auto"
    unusable = {
        ("gradient", "kl"): (
            "the KL to the unpruned policy has no first-order term. Take 'log_prob', or the "
            "criterion 'fisher', which is its second-order term"
        ),
        ("fisher_diagonal", "loss"): (
            "the algorithm's loss is known by the mean of its gradients only. Take 'auto', "
            "'log_prob' or 'value', or the criterion 'taylor'"
        ),
        ("coalitions", "loss"): (
            "the algorithm's loss is known by its gradients only. Take 'auto', 'kl', 'log_prob' "
            "or 'value'"
        ),
    }
    for (need, name), why in unusable.items():
        if need in wanted and objective == name:
            yield (
                f"`{prefix}evidence.objective` {name!r} is of no use to criterion "
                f"{criterion!r}: {why}."
            )


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
