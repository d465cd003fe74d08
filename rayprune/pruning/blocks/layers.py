"""``protect`` and ``groups``: which layers are spared, and which share a budget of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from rayprune.pruning.checks import Faults, must, sparsity

_BUDGETS: Final = ({"sparsity"}, {"neuron", "weight"})


def protect_faults(field: str, value: Any) -> Faults:
    """Yield what is wrong with ``protect``."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        yield must(field, "a list of glob patterns", value)
        return
    for pattern in value:
        if not isinstance(pattern, str):
            yield f"`{field}` must hold strings, but one is {pattern!r}."


def group_faults(field: str, value: Any) -> Faults:
    """Yield what is wrong with ``groups`` by itself."""
    if not isinstance(value, Mapping):
        yield must(field, "a mapping {group: {sparsity: s}}", value)
        return
    for name, budget in value.items():
        if not isinstance(name, str):
            yield f"`{field}` must name groups by strings, but one is {name!r}."
        elif not isinstance(budget, Mapping) or set(budget) not in _BUDGETS:
            forms = "{sparsity: s}, or with granularity 'hybrid' {neuron: s, weight: s}"
            yield must(f"{field}.{name}", forms, budget)
        else:
            for key, target in budget.items():
                yield from sparsity(f"{field}.{name}.{key}", target)
