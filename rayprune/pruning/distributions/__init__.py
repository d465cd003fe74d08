"""Distributions: how the sparsity of a budget splits over its layers.

A distribution is a plain function ``(shapes, sparsity, protected) -> {layer: sparsity}``; it
returns None where the whole budget shall be one scope, in which all weights compete. What the
protected layers keep, the others carry, so that the budget's total is met.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rayprune.pruning.registry import Registry


@dataclass(frozen=True, slots=True)
class Shape:
    """What a distribution knows of a layer."""

    dims: tuple[int, ...]
    """``(out, in)`` or ``(out, in, *kernel)``."""
    count: int
    """How many weights (or units, under granularity neuron) the layer has to prune."""


Distribution = Callable[[Mapping[str, Shape], float, frozenset[str]], "Mapping[str, float] | None"]


def uniform(
    shapes: Mapping[str, Shape], sparsity: float, protected: frozenset[str] = frozenset()
) -> dict[str, float]:
    """Give every layer that is not protected the same sparsity.

    Args:
        shapes: every layer of the budget.
        sparsity: of the whole budget, in [0, 1].
        protected: layers that are kept dense.

    Returns:
        Layer sparsities: 0 for the protected ones, ``sparsity * N / (N - N_protected)`` else.

    >>> uniform({"a": Shape((2, 4), 8), "b": Shape((4, 2), 8)}, 0.25, frozenset("b"))
    {'a': 0.5, 'b': 0.0}
    """
    total = sum(shape.count for shape in shapes.values())
    free = sum(shape.count for name, shape in shapes.items() if name not in protected)
    # Without protected layers the sparsity itself, not a quotient that rounding has touched.
    each = sparsity if free == total else min(1.0, sparsity * total / max(free, 1))
    return {name: 0.0 if name in protected else each for name in shapes}


def erk(
    shapes: Mapping[str, Shape], sparsity: float, protected: frozenset[str] = frozenset()
) -> dict[str, float]:
    """Split by the Erdos-Renyi kernel: density in proportion to ``sum(dims) / prod(dims)``.

    Evci et al. 2020 (arXiv:1911.11134), as in google-research/rigl with a power scale of 1: a
    layer whose density would exceed 1 is made dense, and the rest is solved again.

    Args:
        shapes: every layer of the budget.
        sparsity: of the whole budget, in [0, 1].
        protected: layers that are kept dense.

    Returns:
        Layer sparsities: 0 for protected and saturated layers.

    >>> erk({"wide": Shape((10, 10), 100), "thin": Shape((10, 2), 20)}, 0.5)
    {'wide': 0.6, 'thin': 0.0}
    """
    raw = {name: sum(shape.dims) / math.prod(shape.dims) for name, shape in shapes.items()}
    kept = (1.0 - sparsity) * sum(shape.count for shape in shapes.values())
    dense = set(protected)
    while len(dense) < len(shapes):
        rest = {name: raw[name] for name in shapes if name not in dense}
        budget = kept - sum(shapes[name].count for name in dense)
        scale = max(0.0, budget) / sum(value * shapes[name].count for name, value in rest.items())
        largest = max(rest.values())
        if scale * largest <= 1:
            return {name: 1.0 - scale * rest[name] if name in rest else 0.0 for name in shapes}
        dense |= {name for name, value in rest.items() if value == largest}
    return dict.fromkeys(shapes, 0.0)


def global_(
    shapes: Mapping[str, Shape], sparsity: float, protected: frozenset[str] = frozenset()
) -> None:
    """Let all weights of the budget that are not protected compete in one scope."""
    del shapes, sparsity, protected  # one scope, whatever they are


_REGISTRY: Registry[Distribution] = Registry(
    "distribution", {"uniform": uniform, "erk": erk, "global": global_}
)
DISTRIBUTIONS: Mapping[str, Distribution] = _REGISTRY


def register_distribution(name: str, function: Distribution) -> None:
    """Make a distribution known by name to `PruningConfig` and the YAML.

    Args:
        name: a new name.
        function: ``(shapes, sparsity, protected) -> {layer: sparsity}``, or None for one scope.

    Raises:
        ConfigError: the name is taken.

    >>> register_distribution("half", lambda shapes, s, protected: dict.fromkeys(shapes, 0.5))
    """
    _REGISTRY.add(name, function)
