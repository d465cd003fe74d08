"""Granularities: what is removed together, how its scores pool, how its mask expands.

A *part* is a set of weights that compete (`parts.Part`). Under granularity ``weight`` each
parameter is a part and each weight competes for itself. Under ``neuron`` an output unit competes: a
row of a Linear, a filter of a Conv, a hidden unit of an LSTM or GRU. One file per granularity.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from torch import Tensor, nn

from rayprune.pruning.granularity.neuron import neuron_parts
from rayprune.pruning.granularity.parts import POOLINGS, Named, Part, WeightPart
from rayprune.pruning.granularity.weight import weight_parts

__all__ = [
    "ALIASES",
    "GRANULARITIES",
    "POOLINGS",
    "Named",
    "Part",
    "WeightPart",
    "matrix_shape",
    "parts_of",
]

GRANULARITIES: Mapping[str, str] = {
    "weight": "Single weights.",
    "neuron": "Output units: rows of a Linear, filters.",
}
"""Name -> what it is, in a line."""
ALIASES: Mapping[str, str] = {"filter": "neuron"}

_PARTS: Mapping[str, Callable[[nn.Module, Mapping[str, Tensor]], list[Part]]] = {
    "weight": weight_parts,
    "neuron": neuron_parts,
}


def parts_of(layer: nn.Module, parameters: Mapping[str, Tensor], granularity: str) -> list[Part]:
    """Split a layer into the parts that compete.

    Args:
        layer: Linear, Conv1d, Conv2d, LSTM or GRU.
        parameters: the layer's prunable parameters, by a name that ends in theirs in the layer.
        granularity: a key of `GRANULARITIES` whose parts lie within a layer.
    """
    return _PARTS[granularity](layer, parameters)


def matrix_shape(parameters: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Return the shape that a layer has for a distribution.

    A recurrent layer counts as one matrix: its rows by the inputs of all its weights.

    >>> import torch
    >>> matrix_shape({"weight": torch.zeros(8, 3, 5, 5)})
    (8, 3, 5, 5)
    >>> matrix_shape({"weight_ih_l0": torch.zeros(8, 3), "weight_hh_l0": torch.zeros(8, 2)})
    (8, 5)
    """
    weights = list(parameters.values())
    if len(weights) == 1:
        return tuple(weights[0].shape)
    rows = weights[0].shape[0]
    return rows, math.ceil(sum(weight.numel() for weight in weights) / rows)
