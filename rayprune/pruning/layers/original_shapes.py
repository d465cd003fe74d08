"""Original shapes of the parameters of a network that was compacted in mid-training.

Masks alone leave a network its shape; compaction takes rows and columns out of it. All that is
counted and aimed at stays relative to the original network, so that a target means the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from rayprune.pruning.layers.kinds import ROWS_FIRST, Axes
from rayprune.pruning.packing import copied
from rayprune.pruning.pruner_part import PrunerPart

Kept = tuple[Tensor, ...]
"""For each leading axis of a parameter the indices that are left of it."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What one parameter was before any of it went."""

    shape: tuple[int, ...]
    kept: Kept
    """Original indices that are left, by leading axis; on the CPU."""
    axes: Axes = ROWS_FIRST
    """Where the parameter has its units."""

    @property
    def size(self) -> int:
        """How many weights there were."""
        return math.prod(self.shape)

    def narrowed(self, kept: Sequence[Tensor]) -> Origin:
        """Return the origin after another compaction.

        Args:
            kept: indices of what is there now, by leading axis.
        """
        further = tuple(held[now.cpu()] for held, now in zip(self.kept, kept, strict=True))
        return Origin(self.shape, further, self.axes)

    def inflated(self, tensor: Tensor) -> Tensor:
        """Return a tensor of the original shape, zero (or False) where its rows have gone.

        >>> rows, columns = torch.tensor([0, 2]), torch.tensor([1])
        >>> Origin((3, 2), (rows, columns)).inflated(torch.tensor([[5], [7]])).tolist()
        [[0, 5], [0, 0], [0, 7]]
        """
        whole = torch.zeros(self.shape, dtype=tensor.dtype, device=tensor.device)
        places = torch.meshgrid(*(axis.to(tensor.device) for axis in self.kept), indexing="ij")
        whole[places] = tensor
        return whole


class OriginalShapes(PrunerPart):
    """The origins of one module's parameters, and when it was compacted last.

    >>> origins = OriginalShapes()
    >>> rows = torch.tensor([0, 2])
    >>> origins.narrow({"w": torch.Size([3, 4])}, {"w": (rows, torch.arange(4))}, by_unit=True)
    >>> origins.kept_in("w", torch.ones(2, 4)), origins.size("w", torch.ones(2, 4))
    (8, 12)
    """

    key: ClassVar[str] = "origins"

    def __init__(self) -> None:
        self.held: dict[str, Origin] = {}
        """By full parameter name; a parameter that is whole is absent."""
        self.by_unit = True
        """Whether whole units are what is pruned, so that a column that went is no weight less."""
        self._seen = 0
        self._tick = 0

    def __bool__(self) -> bool:
        return bool(self.held)

    def due(self, clock: float, every: int | None, updates: int) -> bool:
        """Return whether to look for dead units now.

        Args:
            clock: env steps.
            every: env steps between compactions, None for never.
            updates: mask updates so far: without a new one there is nothing new to go.
        """
        return every is not None and int(clock // every) > self._tick and updates > self._seen

    def note(self, clock: float, every: int, updates: int) -> None:
        """Remember that it was looked, whatever was found."""
        self._tick, self._seen = int(clock // every), updates

    def narrow(
        self,
        before: Mapping[str, Sequence[int]],
        kept: Mapping[str, Kept],
        *,
        by_unit: bool,
        axes: Mapping[str, Axes] | None = None,
    ) -> None:
        """Take a compaction in.

        Args:
            before: the parameters' shapes before it.
            kept: what is left of those that shrank.
            by_unit: see the attribute.
            axes: of parameters whose units are no rows.
        """
        self.by_unit = by_unit
        columns = axes or {}
        for name, indices in kept.items():
            held = self.held.get(name)
            if held is None:
                whole = tuple(torch.arange(size) for size in before[name][: len(indices)])
                held = Origin(tuple(before[name]), whole, columns.get(name, ROWS_FIRST))
            self.held[name] = held.narrowed(indices)

    def shape(self, name: str, parameter: Tensor) -> tuple[int, ...]:
        """Return a parameter's original shape."""
        held = self.held.get(name)
        return tuple(parameter.shape) if held is None else held.shape

    def size(self, name: str, parameter: Tensor) -> int:
        """Return how many weights a parameter had originally."""
        return math.prod(self.shape(name, parameter))

    def kept_in(self, name: str, parameter: Tensor, mask: Tensor | None = None) -> int:
        """Return how many of a parameter's original weights pruning has left.

        A weight that went with a unit it *read* was never pruned by itself. Where units are what is
        pruned it counts as kept, as it would with masks alone; where weights are, it is one less.
        """
        held = self.held.get(name)
        if held is None or (mask is None and not self.by_unit):
            return parameter.numel() if mask is None else int(torch.count_nonzero(mask))
        if not self.by_unit:
            assert mask is not None
            return int(torch.count_nonzero(mask))
        whole = held.axes.shape(held.shape)
        if mask is None:
            return held.axes.shape(parameter.shape)[0] * math.prod(whole[1:])
        return int(held.axes.rows(mask).flatten(1).any(1).sum()) * math.prod(whole[1:])

    def inflate(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return tensors by parameter name in their original shapes; see `Origin.inflated`.

        The network that they belong to computes the same: what is put back reads nothing, and
        nothing reads it.
        """
        return {
            name: self.held[name].inflated(value) if name in self.held else value
            for name, value in tensors.items()
        }

    def inflate_masks(
        self, masks: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]
    ) -> dict[str, Tensor]:
        """Return masks in the original shapes, False where units have gone.

        Args:
            masks: by parameter name.
            shapes: of all prunable parameters as they are now; those without a mask are whole.
        """
        known = {
            name: torch.ones(shape, dtype=torch.bool)
            for name, shape in shapes.items()
            if name in self.held
        }
        inflated = self.inflate({**known, **masks})
        if self.by_unit:
            # A column that went is no pruned weight: units are what is masked, in whole rows.
            for name in known:
                axes = self.held[name].axes
                rows = axes.rows(inflated[name])
                alive = rows.flatten(1).any(1).view(-1, *[1] * (rows.dim() - 1))
                inflated[name] = axes.weight(alive.expand(rows.shape)).contiguous()
        return inflated

    def state_dict(self) -> dict[str, Any]:
        """Return everything as plain values and tensors."""
        parameters = {
            name: {
                "shape": list(held.shape),
                "kept": [axis.clone() for axis in held.kept],
                "transposed": int(held.axes.transposed),
                "groups": held.axes.groups,
            }
            for name, held in self.held.items()
        }
        return {
            "parameters": parameters,
            "by_unit": int(self.by_unit),
            "seen": self._seen,
            "tick": self._tick,
        }

    def unpack(self, state: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return the origins, and what else `state_dict` returned."""
        given = state or {}
        held = {
            name: Origin(
                tuple(one["shape"]),
                tuple(copied(axis) for axis in one["kept"]),
                Axes(bool(one.get("transposed", False)), int(one.get("groups", 1))),
            )
            for name, one in given.get("parameters", {}).items()
        }
        seen, tick = int(given.get("seen", 0)), int(given.get("tick", 0))
        return {"held": held, "by_unit": bool(given.get("by_unit", True)), "last": (seen, tick)}

    def restore(self, unpacked: dict[str, Any]) -> None:
        """Take them over; in place, since layers hold this very object."""
        self.held, self.by_unit = unpacked["held"], unpacked["by_unit"]
        self._seen, self._tick = unpacked["last"]
