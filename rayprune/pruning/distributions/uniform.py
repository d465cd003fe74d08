"""Distribution ``uniform``: one sparsity for all layers."""

from __future__ import annotations

from collections.abc import Mapping

from rayprune.pruning.distributions.base import Shape


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
