"""`PrunableLayer`: a maskable layer with its place in the module."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from rayprune.pruning.layers.attach import join
from rayprune.pruning.layers.kinds import axes_of
from rayprune.pruning.layers.masked import MaskedLayer, prunable_parameters
from rayprune.pruning.layers.original_shapes import OriginalShapes

Columns = tuple[int | None, ...]
"""For each sensor the input of a layer that reads it; None where the layer does not."""


@dataclass(frozen=True, slots=True)
class Unit:
    """Layers that go as a whole: the branch of a residual block, or one layer."""

    name: str
    layers: tuple[str, ...]
    identity: bool
    """Whether it goes by becoming the identity, and not by becoming zero."""


@dataclass(frozen=True, slots=True)
class PrunableLayer:
    """A maskable layer with its place in the module."""

    name: str
    module: MaskedLayer
    group: str
    columns: Columns | None = None
    """Under granularity ``input``, which of its inputs reads each sensor."""
    unit: Unit | None = None
    """Under granularity ``layer``, what it goes together with."""
    spared: frozenset[str] = frozenset()
    """Names in the layer of weights that are left alone, for they are frozen."""
    origins: OriginalShapes = field(default_factory=OriginalShapes, compare=False)
    """What the parameters were before any compaction; the module's, shared by its layers."""

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """The prunable parameters by their name in the layer."""
        weights = prunable_parameters(self.module)
        if self.spared:
            return {name: w for name, w in weights.items() if name not in self.spared}
        return weights

    @property
    def named(self) -> dict[str, nn.Parameter]:
        """The prunable parameters by their name in the whole module."""
        return {self.full_name(name): weight for name, weight in self.parameters.items()}

    def full_name(self, parameter: str) -> str:
        """Return a parameter's name in the whole module."""
        return join(self.name, parameter)

    @property
    def dims(self) -> tuple[int, ...]:
        """The layer's shape as one matrix, ``(out, in, ...)``, before any compaction."""
        axes = axes_of(self.module)
        return matrix_shape([axes.shape(weight.shape) for weight in self.whole.values()])

    @property
    def whole(self) -> dict[str, Tensor]:
        """The prunable parameters as they were before any compaction: shapes without data."""
        shapes = {n: self.origins.shape(self.full_name(n), w) for n, w in self.parameters.items()}
        return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}

    @property
    def total(self) -> int:
        """The prunable weights that the layer had before any compaction."""
        return sum(self.origins.size(self.full_name(n), w) for n, w in self.parameters.items())

    @property
    def pruned(self) -> int:
        """How many of them are masked, or went with a unit that was."""
        masks = self.module.masks
        return self.total - sum(
            self.origins.kept_in(self.full_name(name), weight, masks.get(name))
            for name, weight in self.parameters.items()
        )


def matrix_shape(shapes: Sequence[torch.Size]) -> tuple[int, ...]:
    """Return the shape that a layer has as one matrix, from those of its weights.

    A recurrent layer counts as one: its rows by the inputs of all its weights.

    >>> matrix_shape([torch.Size([8, 3, 5, 5])])
    (8, 3, 5, 5)
    >>> matrix_shape([torch.Size([8, 3]), torch.Size([8, 2])])
    (8, 5)
    """
    if len(shapes) == 1:
        return tuple(shapes[0])
    rows = shapes[0][0]
    return rows, math.ceil(sum(shape.numel() for shape in shapes) / rows)


def protected_names(layers: Iterable[PrunableLayer], patterns: Iterable[str]) -> frozenset[str]:
    """Return the names of the layers that a glob pattern matches."""
    return frozenset(
        layer.name
        for layer in layers
        if any(fnmatch.fnmatchcase(layer.name, pattern) for pattern in patterns)
    )
