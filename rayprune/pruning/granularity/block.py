"""Granularity ``block``: 16 output rows of one input column, the shape that generated C can use."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rayprune.pruning.granularity.base import (
    POOLINGS,
    Named,
    Part,
    WithinLayers,
    unmultiplied_faults,
)
from rayprune.pruning.layers.kinds import ROWS_FIRST, Axes, axes_of, kind_of
from rayprune.pruning.layers.prunable import PrunableLayer

BLOCK_ROWS = 16


@dataclass(frozen=True, slots=True)
class BlockPart(Part):
    """Blocks of 16 output rows by one input column (in a Conv, one weight of the kernel).

    Where 16 doesn't divide the rows, the last blocks have what rows are left, and count as one
    each. In a recurrent layer a block lies within one gate.

    >>> part = BlockPart({"weight": torch.Size([17, 2])}, gates=1)
    >>> part.count
    4
    >>> part.pool({"weight": torch.ones(17, 2)}, "sum")
    tensor([[[16., 16.],
             [ 1.,  1.]]])
    """

    gates: int
    axes: Axes = ROWS_FIRST

    @property
    def count(self) -> int:
        """How many blocks."""
        shape = self._shape
        return self.gates * math.ceil(shape[0] / self.gates / BLOCK_ROWS) * math.prod(shape[1:])

    @property
    def _shape(self) -> torch.Size:
        return self.axes.shape(self.shapes[self.parameters[0]])

    def pool(self, scores: Named, pooling: str) -> Tensor:
        """Return each block's score, ``(gates, blocks of rows, columns)``."""
        own = self.axes.rows(scores[self.parameters[0]])
        rows = own.reshape(self.gates, self._shape[0] // self.gates, -1)
        whole = rows.shape[1] // BLOCK_ROWS * BLOCK_ROWS
        pieces = [rows[:, :whole].reshape(self.gates, -1, BLOCK_ROWS, rows.shape[2])]
        if whole < rows.shape[1]:
            # Apart, so that the mean of a smaller block is over its own rows.
            pieces.append(rows[:, None, whole:])
        pooled = [_pooled(piece, pooling) for piece in pieces]
        return torch.cat(pooled, dim=1)

    def expand(self, keep: Tensor, scores: Named) -> Iterator[tuple[str, Tensor]]:
        """Yield the mask of whole blocks."""
        rows = keep.repeat_interleave(BLOCK_ROWS, dim=1)[:, : self._shape[0] // self.gates]
        yield self.parameters[0], self.axes.weight(rows.reshape(self._shape)).contiguous()


def _pooled(blocks: Tensor, pooling: str) -> Tensor:
    """Pool ``(gates, blocks, rows, columns)`` over the rows."""
    gates, count, rows, columns = blocks.shape
    flat = blocks.transpose(2, 3).reshape(-1, rows)
    return POOLINGS[pooling](flat).view(gates, count, columns)


class BlockGranularity(WithinLayers):
    """16 output rows by one input column: what generated C code can use."""

    __slots__ = ()

    def split(self, layer: nn.Module, parameters: Mapping[str, Tensor]) -> list[Part]:
        """Make each parameter a part whose blocks compete."""
        gates, axes = kind_of(layer).gates, axes_of(layer)
        return [BlockPart({name: weight.shape}, gates, axes) for name, weight in parameters.items()]

    def layer_faults(
        self, layers: Sequence[PrunableLayer], protected: Collection[str], tied: Collection[str]
    ) -> list[str]:
        """Return a fault if blocks mean nothing to a layer."""
        return super().layer_faults(layers, protected, tied) + unmultiplied_faults(
            self.name, layers
        )
