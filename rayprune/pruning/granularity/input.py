"""Granularity ``input``: sensors, over every layer that reads the observation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rayprune.pruning.granularity.base import POOLINGS, Named, Part
from rayprune.pruning.layers.prunable import Columns


@dataclass(frozen=True, slots=True)
class SensorPart(Part):
    """Sensors: one input column of each layer that reads the observation, in a Conv one channel.

    One decision for all those layers, so that a sensor that goes is read by none of them.

    >>> part = SensorPart(
    ...     {"pi": torch.Size([1, 2]), "vf": torch.Size([1, 3])}, {"pi": (0, 1), "vf": (0, 2)}
    ... )
    >>> scores = {"pi": torch.tensor([[1.0, 2.0]]), "vf": torch.tensor([[5.0, 9.0, 4.0]])}
    >>> part.pool(scores, "sum")
    tensor([6., 6.])
    >>> {name: mask.int().tolist() for name, mask in part.expand(torch.tensor([True, False]), {})}
    {'pi': [[1, 0]], 'vf': [[1, 1, 0]]}
    """

    columns: Mapping[str, Columns]
    """By parameter name."""

    @property
    def count(self) -> int:
        """How many sensors."""
        return len(next(iter(self.columns.values())))

    def pool(self, scores: Named, pooling: str) -> Tensor:
        """Return each sensor's score over all its weights, ``(sensors,)``."""
        by_layer = [self._by_sensor(scores[name], name) for name in self.shapes]
        weights = torch.cat([values for values, _ in by_layer], dim=1)
        pooled = POOLINGS[pooling](weights)
        if pooling == "mean":
            # Weights of layers that don't read a sensor are zeros here, and count for nothing.
            read = torch.stack([count for _, count in by_layer]).sum(dim=0)
            pooled = pooled * weights.shape[1] / read.clamp(min=1)
        return pooled

    def expand(self, keep: Tensor, scores: Named) -> Iterator[tuple[str, Tensor]]:
        """Yield masks of whole columns."""
        gone = (~keep).tolist()
        for name, shape in self.shapes.items():
            mask = torch.ones(shape, dtype=torch.bool, device=keep.device)
            for column, drops in zip(self.columns[name], gone, strict=True):
                if drops and column is not None:
                    mask[:, column] = False
            yield name, mask

    def _by_sensor(self, scores: Tensor, name: str) -> tuple[Tensor, Tensor]:
        """Return ``(sensors, weights)``, and how many weights of each sensor there are."""
        by_column = scores.movedim(1, 0).reshape(scores.shape[1], -1)
        columns = self.columns[name]
        reads = torch.tensor([c is not None for c in columns], device=scores.device)
        index = torch.tensor([c or 0 for c in columns], device=scores.device)
        values = torch.where(reads[:, None], by_column[index], 0.0)
        return values, reads * by_column.shape[1]


def reading_parameters(layer: nn.Module, parameters: Mapping[str, Tensor]) -> list[str]:
    """Return the parameters of a layer that its inputs meet: all but hidden-to-hidden ones.

    Args:
        layer: Linear, Conv, LSTM or GRU; of a stack the first layer, in both directions.
        parameters: its prunable parameters.

    >>> lstm = nn.LSTM(2, 2, num_layers=2)
    >>> reading_parameters(lstm, dict(lstm.named_parameters()))
    ['weight_ih_l0']
    """
    if not isinstance(layer, nn.RNNBase):
        return list(parameters)
    first = ("weight_ih_l0", "weight_ih_l0_reverse")
    return [name for name in parameters if name.rpartition(".")[2] in first]
