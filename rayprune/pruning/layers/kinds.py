"""Kinds of layers: where each has its units, its inputs and its gates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Axes:
    """Where a weight has its units: its rows, or its columns in groups.

    >>> flipped = Axes(transposed=True)
    >>> flipped.rows(torch.tensor([[1, 2], [3, 4]])).tolist()
    [[1, 3], [2, 4]]
    """

    transposed: bool = False
    """Whether inputs come first, ``(in, out / groups, *kernel)``, as in a transposed convolution
    and in an Embedding's table."""
    groups: int = 1
    """Of a transposed weight; rows of others say by themselves which group they read."""

    def rows(self, weight: Tensor) -> Tensor:
        """Return a weight as ``(out, in / groups, *kernel)``; a view where one will do."""
        if not self.transposed:
            return weight
        if self.groups == 1:
            return weight.transpose(0, 1)
        return _turned(weight, self.groups)

    def weight(self, rows: Tensor) -> Tensor:
        """Return what `rows` made of a weight in the weight's own form."""
        if not self.transposed:
            return rows
        if self.groups == 1:
            return rows.transpose(0, 1)
        return _turned(rows, self.groups)

    def shape(self, weight: Sequence[int]) -> torch.Size:
        """Return the shape of `rows` of a weight.

        >>> Axes(transposed=True, groups=2).shape((4, 3, 5))
        torch.Size([6, 2, 5])
        """
        return self.rows(torch.empty(tuple(weight), device="meta")).shape


def _turned(weight: Tensor, groups: int) -> Tensor:
    by_group: Tensor = weight.unflatten(0, (groups, -1))
    return by_group.transpose(1, 2).flatten(0, 1)


ROWS_FIRST: Final = Axes()


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerKind:
    """What layers of one class have in common."""

    gates: int = 1
    """How often a unit's rows come in each weight: once, or once in each gate."""
    recurrent: bool = False
    """Whether its units read themselves: input and hidden weights together make a unit."""
    places: int = 0
    """Axes of its output after that of the units: positions in a sequence, image or volume."""
    transposed: bool = False
    """See `Axes`."""
    multiplies: bool = True
    """Whether each row of its weight is multiplied with the inputs: so that groups of inputs, and
    blocks of rows by inputs, are what sparse kernels know."""


KINDS: Final[Mapping[type[nn.Module], LayerKind]] = {
    nn.Conv1d: LayerKind(places=1),
    nn.Conv2d: LayerKind(places=2),
    nn.Conv3d: LayerKind(places=3),
    nn.ConvTranspose1d: LayerKind(places=1, transposed=True),
    nn.ConvTranspose2d: LayerKind(places=2, transposed=True),
    nn.ConvTranspose3d: LayerKind(places=3, transposed=True),
    nn.Embedding: LayerKind(transposed=True, multiplies=False),
    nn.Bilinear: LayerKind(multiplies=False),
    nn.RNN: LayerKind(recurrent=True),
    nn.GRU: LayerKind(recurrent=True, gates=3),
    nn.LSTM: LayerKind(recurrent=True, gates=4),
    nn.RNNCell: LayerKind(recurrent=True),
    nn.GRUCell: LayerKind(recurrent=True, gates=3),
    nn.LSTMCell: LayerKind(recurrent=True, gates=4),
}
"""By torch's class; what is not here is like a Linear: rows of one weight."""

_LINEAR: Final = LayerKind()
CONVOLUTIONS: Final = tuple(kind for kind, facts in KINDS.items() if facts.places)


def kind_of(layer: nn.Module) -> LayerKind:
    """Return the kind of a layer, or of a subclass of torch's.

    >>> kind_of(nn.GRUCell(2, 2)).gates, kind_of(nn.Conv1d(1, 2, 3)).places
    (3, 1)
    """
    return next((KINDS[kind] for kind in type(layer).__mro__ if kind in KINDS), _LINEAR)


def is_of_known_kind(layer: nn.Module) -> bool:
    """Whether `kind_of` knows the layer, and doesn't take it for a Linear."""
    return isinstance(layer, (nn.Linear, *KINDS))


def axes_of(layer: nn.Module) -> Axes:
    """Return where the weights of a layer have their units.

    >>> axes_of(nn.ConvTranspose1d(4, 6, 3, groups=2))
    Axes(transposed=True, groups=2)
    """
    if not kind_of(layer).transposed:
        return ROWS_FIRST
    return Axes(transposed=True, groups=int(getattr(layer, "groups", 1)))
