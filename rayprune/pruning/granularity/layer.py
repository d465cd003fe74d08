"""Granularity ``layer``: whole residual blocks and whole layers of one width."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rayprune.pruning.granularity.base import POOLINGS, Named, Part
from rayprune.pruning.layers.identity import identity_weight


@dataclass(frozen=True, slots=True)
class LayerPart(Part):
    """One unit: the branch of a residual block, or a layer whose output is shaped like its input.

    A branch goes by its weights being zero. A layer that goes becomes the identity: of its mask
    stays what `identity_weight` says, and `rayprune.pruning.layers.identity` holds ones.

    >>> part = LayerPart({"0.weight": torch.Size([2, 2])}, unit="0", identity=True)
    >>> dict(part.expand(torch.tensor([False]), {}))
    {'0.weight': tensor([[ True, False],
            [False,  True]])}
    """

    unit: str
    identity: bool

    @property
    def count(self) -> int:
        """One: the unit."""
        return 1

    def pool(self, scores: Named, pooling: str) -> Tensor:
        """Return the score of all its weights together, ``(1,)``."""
        return POOLINGS[pooling](torch.cat([scores[n].reshape(1, -1) for n in self.shapes], dim=1))

    def expand(self, keep: Tensor, scores: Named) -> Iterator[tuple[str, Tensor]]:
        """Yield masks of everything, or of what a unit that is gone leaves."""
        for name, shape in self.shapes.items():
            if bool(keep):
                yield name, torch.ones(shape, dtype=torch.bool, device=keep.device)
            elif self.identity:
                yield name, identity_weight(shape).to(keep.device)
            else:
                yield name, torch.zeros(shape, dtype=torch.bool, device=keep.device)

    def live(self, free: Mapping[str, Tensor | None]) -> Tensor | None:
        """Return whether more is left of the unit than its removal leaves."""
        known = next((mask for mask in free.values() if mask is not None), None)
        if known is None:
            return None
        kept = dict(self.expand(torch.zeros(1, dtype=torch.bool, device=known.device), {}))
        more = [mask is None or bool((mask & ~kept[name]).any()) for name, mask in free.items()]
        return torch.tensor([any(more)], device=known.device)
