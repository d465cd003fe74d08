"""Granularity ``neuron``: structured pruning, of output units with all their incoming weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rayprune.pruning.granularity.base import POOLINGS, Named, Part, WithinLayers
from rayprune.pruning.layers.attention import PACKED, SEPARATE, head_sizes
from rayprune.pruning.layers.kinds import ROWS_FIRST, Axes, axes_of, kind_of
from rayprune.pruning.layers.parametrised import tensor_name


@dataclass(frozen=True, slots=True)
class UnitPart(Part):
    """Output units: rows of a Linear, filters of a Conv, hidden units of a recurrent layer.

    >>> rows = UnitPart({"weight": torch.Size([2, 2])}, units=2, gates=1)
    >>> rows.pool({"weight": torch.tensor([[1.0, 2.0], [3.0, 5.0]])}, "mean")
    tensor([1.5000, 4.0000])
    >>> dict(rows.expand(torch.tensor([True, False]), {}))
    {'weight': tensor([[ True,  True],
            [False, False]])}
    """

    units: int
    gates: int
    """How often a unit's rows come in each parameter."""
    axes: Axes = ROWS_FIRST
    """Where the parameters have their units."""

    @property
    def count(self) -> int:
        """How many units."""
        return self.units

    def pool(self, scores: Named, pooling: str) -> Tensor:
        """Return each unit's score over its rows in all parameters and gates, ``(units,)``."""
        return POOLINGS[pooling](torch.cat([self._by_unit(scores[n]) for n in self.shapes], 1))

    def expand(self, keep: Tensor, scores: Named) -> Iterator[tuple[str, Tensor]]:
        """Yield masks of whole rows."""
        for name, shape in self.shapes.items():
            column = keep.repeat(self.gates).view(-1, *[1] * (len(shape) - 1))
            whole = column.expand(self.axes.shape(shape))
            yield name, self.axes.weight(whole).contiguous()

    def _by_unit(self, scores: Tensor) -> Tensor:
        """Reshape ``(gates * units, ...)`` to ``(units, weights of the unit)``."""
        gated = self.axes.rows(scores).reshape(self.gates, self.units, -1)
        return gated.transpose(0, 1).reshape(self.units, -1)


@dataclass(frozen=True, slots=True)
class PairedPart(Part):
    """Rows of attention's packed projection: a query's with its key's, and a value's by itself.

    A row of queries meets one of keys and nothing else, so that neither is of use alone.

    >>> part = PairedPart({"in_proj_weight": torch.Size([4, 1])}, pairs=1)
    >>> part.pool({"in_proj_weight": torch.tensor([[1.0], [2.0], [5.0], [9.0]])}, "sum")
    tensor([3., 5., 9.])
    >>> [mask.int().flatten().tolist() for _, mask in part.expand(torch.arange(3) > 0, {})]
    [[0, 0, 1, 1]]
    """

    pairs: int
    """Rows of queries, and as many of keys; what is left are values."""

    @property
    def count(self) -> int:
        """How many pairs and values."""
        return self._shape[0] - self.pairs

    @property
    def _shape(self) -> torch.Size:
        return self.shapes[self.parameters[0]]

    def pool(self, scores: Named, pooling: str) -> Tensor:
        """Return the score of each pair, and then of each value."""
        sizes = [self.pairs, self.pairs, self.count - self.pairs]
        queries, keys, values = scores[self.parameters[0]].split(sizes)
        pool = POOLINGS[pooling]
        return torch.cat([pool(torch.cat([queries, keys], 1)), pool(values)])

    def expand(self, keep: Tensor, scores: Named) -> Iterator[tuple[str, Tensor]]:
        """Yield the mask of whole rows."""
        rows = torch.cat([keep[: self.pairs], keep])
        yield self.parameters[0], rows[:, None].expand(self._shape).contiguous()


class NeuronGranularity(WithinLayers):
    """Output units: rows of a Linear, filters."""

    __slots__ = ()

    aliases = ("filter",)
    removes_units = True
    whole_rows = True

    def split(self, layer: nn.Module, parameters: Mapping[str, Tensor]) -> list[Part]:
        """Make the units of a layer compete; see `unit_parts`."""
        return unit_parts(layer, parameters)


def unit_parts(layer: nn.Module, parameters: Mapping[str, Tensor]) -> list[Part]:
    """Split a layer into sets of units that compete.

    A hidden unit of a recurrent layer is its row in every gate, input and hidden weights together;
    each direction of each stacked layer is a part of its own. A unit of a transposed convolution is
    one of its output channels, and of an Embedding one dimension of all its vectors. In attention a
    row of queries is one with its row of keys.
    """
    if isinstance(layer, nn.MultiheadAttention):
        return _attention_parts(layer, parameters)
    kind, axes = kind_of(layer), axes_of(layer)
    if not kind.recurrent:
        shapes = {name: weight.shape for name, weight in parameters.items()}
        return [UnitPart({n: s}, axes.shape(s)[0], 1, axes) for n, s in shapes.items()]
    stacked: dict[str, dict[str, torch.Size]] = {}
    for name, weight in parameters.items():
        place = tensor_name(name).rpartition(".")[2].partition("h_l")[2]
        stacked.setdefault(place, {})[name] = weight.shape
    size = int(layer.hidden_size)  # type: ignore[arg-type]
    return [UnitPart(shapes, size, kind.gates) for shapes in stacked.values()]


def _attention_parts(layer: nn.MultiheadAttention, parameters: Mapping[str, Tensor]) -> list[Part]:
    sizes = head_sizes(layer, parameters)
    pairs, found = sizes.count * sizes.width, list[Part]()
    shapes = {name: weight.shape for name, weight in parameters.items()}
    paired = {name: s for name, s in shapes.items() if name.endswith(SEPARATE[:2])}
    if paired:
        found.append(UnitPart(paired, pairs, 1))
    for name, shape in shapes.items():
        if name.endswith(PACKED):
            found.append(PairedPart({name: shape}, pairs))
        elif name not in paired:
            found.append(UnitPart({name: shape}, shape[0], 1))
    return found
