"""Granularities: what is removed together, how its scores pool, how its mask expands.

A *part* of a layer is a set of weights that compete. Under granularity ``weight`` each parameter
is a part and each weight competes for itself. Under ``neuron`` an output unit competes: a row of a
Linear, a filter of a Conv, a hidden unit of an LSTM or GRU (its row in every gate, input and
hidden weights together; each direction of each stacked layer is a part of its own).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

GRANULARITIES: tuple[str, ...] = ("weight", "neuron")
ALIASES: Mapping[str, str] = {"filter": "neuron"}


def _l2(scores: Tensor) -> Tensor:
    return scores.square().sum(dim=1).sqrt()


POOLINGS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "sum": lambda scores: scores.sum(dim=1),
    "mean": lambda scores: scores.mean(dim=1),
    "l2": _l2,
}
"""How a unit's score comes from its weights' scores, ``(units, weights) -> (units,)``."""


@dataclass(frozen=True, slots=True)
class Part:
    """Weights of one layer that compete, as single weights or pooled to units."""

    parameters: tuple[str, ...]
    """Parameter names, relative to the layer."""
    count: int
    """How many compete: weights or units."""
    gates: int
    """How often a unit's rows come in each parameter (0: every weight for itself)."""

    def pool(self, scores: Mapping[str, Tensor], pooling: str) -> Tensor:
        """Pool weight scores to the scores that compete.

        Args:
            scores: by parameter name, shaped like the parameters.
            pooling: a key of `POOLINGS`.

        Returns:
            The parameter's own scores, or shape ``(count,)`` for units.

        >>> rows = Part(parameters=("weight",), count=2, gates=1)
        >>> rows.pool({"weight": torch.tensor([[1.0, 2.0], [3.0, 5.0]])}, "mean")
        tensor([1.5000, 4.0000])
        """
        if self.gates == 0:
            return scores[self.parameters[0]]
        return POOLINGS[pooling](torch.cat([self._by_unit(scores[n]) for n in self.parameters], 1))

    def expand(
        self, keep: Tensor, shapes: Mapping[str, torch.Size]
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield each parameter's mask.

        Args:
            keep: bool, shaped as `pool` returned.
            shapes: parameter shapes by name.

        >>> rows = Part(parameters=("weight",), count=2, gates=1)
        >>> dict(rows.expand(torch.tensor([True, False]), {"weight": torch.Size([2, 2])}))
        {'weight': tensor([[ True,  True],
                [False, False]])}
        """
        if self.gates == 0:
            yield self.parameters[0], keep
            return
        for name in self.parameters:
            column = keep.repeat(self.gates).view(-1, *[1] * (len(shapes[name]) - 1))
            yield name, column.expand(shapes[name]).contiguous()

    def _by_unit(self, scores: Tensor) -> Tensor:
        """Reshape ``(gates * units, ...)`` to ``(units, weights of the unit)``."""
        gated = scores.reshape(self.gates, self.count, -1)
        return gated.transpose(0, 1).reshape(self.count, -1)


def parts_of(layer: nn.Module, parameters: Mapping[str, Tensor], granularity: str) -> list[Part]:
    """Split a layer into the parts that compete.

    Args:
        layer: Linear, Conv1d, Conv2d, LSTM or GRU.
        parameters: the layer's prunable parameters, by their name in the layer.
        granularity: ``weight`` or ``neuron``.
    """
    if granularity == "weight":
        return [Part((name,), weight.numel(), 0) for name, weight in parameters.items()]
    if not isinstance(layer, nn.RNNBase):
        return [Part((name,), weight.shape[0], 1) for name, weight in parameters.items()]
    gates = 4 if isinstance(layer, nn.LSTM) else 3
    stacked: dict[str, list[str]] = {}
    for name in parameters:
        stacked.setdefault(name.partition("h_l")[2], []).append(name)
    return [Part(tuple(names), layer.hidden_size, gates) for names in stacked.values()]


def matrix_shape(parameters: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Return the shape that a layer has for a distribution.

    A recurrent layer counts as one matrix: its rows by the inputs of all its weights.

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
