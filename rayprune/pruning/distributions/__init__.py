"""Distributions: layer-wise sparsity ratios, how the sparsity of a budget splits over its layers.

A distribution is a plain function ``(shapes, sparsity, protected) -> {layer: sparsity}``; it
returns None where the whole budget shall be one scope, in which all weights compete. What the
protected layers keep, the others carry, so that the budget's total is met.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rayprune.pruning.checks import Faults, choice_fault, sparsity
from rayprune.pruning.distributions.base import Distribution, Function, Shape
from rayprune.pruning.distributions.erk import erk
from rayprune.pruning.distributions.global_ import global_
from rayprune.pruning.distributions.uniform import uniform
from rayprune.pruning.registry import Registry

__all__ = [
    "DISTRIBUTIONS",
    "Distribution",
    "Shape",
    "distribution_faults",
    "is_even",
    "register_distribution",
]

_REGISTRY: Registry[Distribution] = Registry(
    "distribution",
    {
        "uniform": Distribution(uniform, even=True),
        "erk": Distribution(erk),
        "global": Distribution(global_, even=True, one_scope=True),
    },
)
DISTRIBUTIONS: Mapping[str, Distribution] = _REGISTRY


def register_distribution(name: str, function: Function) -> None:
    """Make a distribution known by name to `PruningConfig` and the YAML.

    Args:
        name: a new name.
        function: ``(shapes, sparsity, protected) -> {layer: sparsity}``, or None for one scope. Or
            a `Distribution` of such a function, which says more of it.

    Raises:
        ConfigError: the name is taken.

    >>> register_distribution("half", lambda shapes, s, protected: dict.fromkeys(shapes, 0.5))
    """
    known = function if isinstance(function, Distribution) else Distribution(function)
    _REGISTRY.add(name, known)


def is_even(distribution: object) -> bool:
    """Return whether a config's ``distribution`` gives all layers one target.

    >>> [is_even(value) for value in ("uniform", "global", "erk", {"pi": 0.5}, "no such name")]
    [True, True, False, False, False]
    """
    if not isinstance(distribution, str) or distribution not in DISTRIBUTIONS:
        return False
    return DISTRIBUTIONS[distribution].even


def distribution_faults(field: str, value: Any) -> Faults:
    """Yield what is wrong with a config's ``distribution``: a name, or each layer's sparsity."""
    if not isinstance(value, Mapping):
        if not isinstance(value, str) or value not in DISTRIBUTIONS:
            fault = choice_fault(field, value, DISTRIBUTIONS)
            yield f"{fault} A mapping {{layer name: sparsity}} will do too."
        return
    for layer, target in value.items():
        if not isinstance(layer, str):
            yield f"`{field}` must name layers by strings, but one is {layer!r}."
        yield from sparsity(f"{field}.{layer}", target)
