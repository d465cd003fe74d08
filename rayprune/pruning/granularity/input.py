"""Granularity ``input``: structured pruning of sensors, over all layers that read observations."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rayprune.errors import ConfigError, InputError
from rayprune.pruning.checks import listed
from rayprune.pruning.granularity.base import POOLINGS, Granularity, Named, Network, Part
from rayprune.pruning.granularity.sensors import reading_parameters
from rayprune.pruning.layers.kinds import ROWS_FIRST, Axes, axes_of
from rayprune.pruning.layers.masked import prunable_name
from rayprune.pruning.layers.prunable import Columns, PrunableLayer


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
    axes: Mapping[str, Axes] = field(default_factory=dict)
    """Likewise, of those whose units are no rows."""

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
            axes = self.axes.get(name, ROWS_FIRST)
            mask = torch.ones(axes.shape(shape), dtype=torch.bool, device=keep.device)
            for column, drops in zip(self.columns[name], gone, strict=True):
                if drops and column is not None:
                    mask[:, column] = False
            yield name, axes.weight(mask).contiguous()

    def _by_sensor(self, scores: Tensor, name: str) -> tuple[Tensor, Tensor]:
        """Return ``(sensors, weights)``, and how many weights of each sensor there are."""
        rows = self.axes.get(name, ROWS_FIRST).rows(scores)
        by_column = rows.movedim(1, 0).reshape(rows.shape[1], -1)
        columns = self.columns[name]
        reads = torch.tensor([c is not None for c in columns], device=scores.device)
        index = torch.tensor([c or 0 for c in columns], device=scores.device)
        values = torch.where(reads[:, None], by_column[index], 0.0)
        return values, reads * by_column.shape[1]


class InputGranularity(Granularity):
    """Sensors: a column of every layer that reads the observation, a channel of a Conv."""

    __slots__ = ()

    spans_layers = True

    def parts(self, layers: Iterable[PrunableLayer]) -> tuple[Part, ...]:
        """Make the sensors compete, each over all layers."""
        read = [
            (layer.full_name(name), layer.parameters[name].shape, layer.columns, layer.module)
            for layer in layers
            for name in reading_parameters(layer.module, layer.parameters)
            if layer.columns is not None
        ]
        shapes = {name: shape for name, shape, _, _ in read}
        columns = {name: places for name, _, places, _ in read}
        return (SensorPart(shapes, columns, {name: axes_of(layer) for name, _, _, layer in read}),)

    def count(self, layers: Iterable[PrunableLayer]) -> int:
        """Count the sensors."""
        return sum(part.count for part in self.parts(layers))

    def layers_of(
        self, layers: Sequence[PrunableLayer], network: Network
    ) -> tuple[PrunableLayer, ...]:
        """Return the layers that read the observation, each with its sensors."""
        if network.sensors is None:
            raise ConfigError(
                "`granularity` 'input' needs to know which layers read the observation: pass "
                "Pruner(sensors=...), see rayprune.pruning.granularity.sensors.find_sensors."
            )
        try:
            columns = network.sensors().columns
        except InputError as error:
            raise ConfigError(f"`granularity` can't be 'input': {error}") from error
        return tuple(
            dataclasses.replace(layer, columns=columns[layer.name])
            for layer in layers
            if layer.name in columns
        )

    def layer_faults(
        self, layers: Sequence[PrunableLayer], protected: Collection[str], tied: Collection[str]
    ) -> list[str]:
        """Return a fault if a layer is protected."""
        if not protected:
            return []
        return [
            f"`pruning.protect` can't hold {listed(protected)} with granularity 'input': a "
            "protected layer would go on reading every sensor. Leave it out."
        ]

    def torn(self, frozen: Iterable[str]) -> bool:
        """Return whether a weight that meets the inputs is frozen."""
        return any(prunable_name(name) and "_hh_" not in name for name in frozen)

    def frozen_faults(self, names: Iterable[str]) -> list[str]:
        """Return a fault for each layer."""
        return [
            f"`pruning.granularity` can't be 'input': {name!r} is frozen (requires_grad=False), "
            "and would go on reading every sensor. Unfreeze it, or set `pruning.frozen` to 'prune'."
            for name in names
        ]
