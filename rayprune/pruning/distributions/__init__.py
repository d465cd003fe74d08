"""Distributions: layer-wise sparsity ratios, how the sparsity of a budget splits over its layers.

A distribution is a plain function ``(shapes, sparsity, protected) -> {layer: sparsity}``; it
returns None where the whole budget shall be one scope, in which all weights compete. What the
protected layers keep, the others carry, so that the budget's total is met.
"""

from __future__ import annotations

from collections.abc import Mapping

from rayprune.pruning.distributions.base import Distribution, Function, Shape
from rayprune.pruning.distributions.erk import erk
from rayprune.pruning.distributions.global_ import global_
from rayprune.pruning.distributions.uniform import uniform
from rayprune.pruning.registry import Registry

__all__ = ["DISTRIBUTIONS", "Distribution", "Shape", "is_even", "register_distribution"]

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
