"""Granularities: what is removed together, how its scores pool, how its mask expands.

A *part* is a set of weights that compete (`parts.Part`). Under granularity ``weight`` each
parameter is a part and each weight competes for itself. Under ``neuron`` an output unit competes: a
row of a Linear, a filter of a Conv, a hidden unit of an LSTM or GRU. One file per granularity;
``hybrid`` is two of them in turn, see `rayprune.pruning.update.phases`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from rayprune.pruning.granularity.base import POOLINGS, Named, Part, WeightPart
from rayprune.pruning.granularity.block import block_parts
from rayprune.pruning.granularity.n_of_m import NofM, group_parts, parse, undivided
from rayprune.pruning.granularity.neuron import neuron_parts
from rayprune.pruning.granularity.weight import weight_parts
from rayprune.pruning.layers.prunable import PrunableLayer

__all__ = [
    "ALIASES",
    "GRANULARITIES",
    "POOLINGS",
    "Named",
    "NofM",
    "Part",
    "WeightPart",
    "count_of",
    "is_granularity",
    "parse",
    "parts_of",
    "spans_layers",
    "split",
    "undivided",
]

GRANULARITIES: Mapping[str, str] = {
    "weight": "Single weights.",
    "neuron": "Output units: rows of a Linear, filters.",
    "block": "16 output rows by one input column: what generated C code can use.",
    "n:m": "N of each M consecutive inputs stay, such as 2:4, 1:4, 1:8; it implies the sparsity.",
    "input": "Sensors: a column of every layer that reads the observation, a channel of a Conv.",
    "layer": "Whole residual blocks, and Linear layers of one width, which become the identity.",
    "hybrid": "Neurons first, then weights: hybrid {neuron: s, weight: s} says how much of each.",
}
"""Name -> what it is, in a line."""
ALIASES: Mapping[str, str] = {"filter": "neuron"}

_PARTS: Mapping[str, Callable[[nn.Module, Mapping[str, Tensor]], list[Part]]] = {
    "weight": weight_parts,
    "neuron": neuron_parts,
    "block": block_parts,
}


def is_granularity(name: object) -> bool:
    """Return whether a config may name this granularity.

    >>> [is_granularity(name) for name in ("filter", "2:4", "n:m", "4:2")]
    [True, True, False, False]
    """
    known = isinstance(name, str) and name != "n:m" and (name in GRANULARITIES or name in ALIASES)
    return known or parse(name) is not None


def parts_of(layer: PrunableLayer, granularity: str) -> list[Part]:
    """Split a layer into the parts that compete, with the parameters' full names.

    Args:
        layer: as it is now.
        granularity: a name whose parts lie within a layer.
    """
    return split(layer.module, layer.named, granularity)


def count_of(layer: PrunableLayer, granularity: str) -> int:
    """Return how many compete in a layer, as it was before any compaction."""
    return sum(part.count for part in split(layer.module, layer.whole, granularity))


def split(layer: nn.Module, parameters: Mapping[str, Tensor], granularity: str) -> list[Part]:
    """Split a module into the parts that compete.

    Args:
        layer: Linear, Conv1d, Conv2d, LSTM or GRU.
        parameters: the layer's prunable parameters, by a name that ends in theirs in the layer.
        granularity: a name whose parts lie within a layer.
    """
    pattern = parse(granularity)
    if pattern is not None:
        return group_parts(parameters, pattern)
    return _PARTS[granularity](layer, parameters)


def spans_layers(granularity: str) -> bool:
    """Return whether a unit may lie over several layers, so that they compete in one scope."""
    return granularity in ("input", "layer")
