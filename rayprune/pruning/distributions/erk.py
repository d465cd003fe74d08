"""Distribution ``erk``: small layers are denser, by the Erdos-Renyi kernel."""

from __future__ import annotations

import math
from collections.abc import Mapping

from rayprune.pruning.distributions.base import Shape


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
