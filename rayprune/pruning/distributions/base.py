"""`Distribution`: how the sparsity of a budget splits over its layers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shape:
    """What a distribution knows of a layer."""

    dims: tuple[int, ...]
    """``(out, in)`` or ``(out, in, *kernel)``."""
    count: int
    """How many weights (or units, under granularity neuron) the layer has to prune."""


Function = Callable[[Mapping[str, Shape], float, frozenset[str]], "Mapping[str, float] | None"]
"""``(shapes, sparsity, protected) -> {layer: sparsity}``; None where all weights compete."""


class Distribution:
    """Layer-wise sparsity ratios, by a plain function of the layers' shapes.

    Args:
        function: called with every layer of a budget, protected ones included, the sparsity of the
            whole budget and the names of the protected ones.
        even: whether all layers have one target, so that a threshold, or a granularity that implies
            the sparsity, can stand in its place.
        one_scope: whether all weights of a budget compete, whatever layer they are of.
    """

    def __init__(self, function: Function, *, even: bool = False, one_scope: bool = False) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.even = even
        self.one_scope = one_scope

    def __call__(
        self,
        shapes: Mapping[str, Shape],
        sparsity: float,
        protected: frozenset[str] = frozenset(),
    ) -> Mapping[str, float] | None:
        """Return the layers' sparsities, or None where all weights compete."""
        return self.function(shapes, sparsity, protected)
