"""Granularity ``n:m``: N of each M consecutive weights along the input dimension."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from rayprune.pruning.granularity.base import POOLINGS, Named, Part

_FORM = re.compile(r"([1-9]\d*):([1-9]\d*)")


@dataclass(frozen=True, slots=True)
class NofM:
    """How many weights of how many stay."""

    n: int
    m: int

    @property
    def sparsity(self) -> float:
        """What the pattern prunes: ``1 - n / m``."""
        return 1.0 - self.n / self.m


def parse(granularity: object) -> NofM | None:
    """Read ``"n:m"`` with ``0 < n < m``; None for anything else.

    >>> parse("2:4"), parse("4:4"), parse("weight")
    (NofM(n=2, m=4), None, None)
    """
    found = _FORM.fullmatch(granularity) if isinstance(granularity, str) else None
    if found is None or int(found[1]) >= int(found[2]):
        return None
    return NofM(int(found[1]), int(found[2]))


@dataclass(frozen=True, slots=True)
class GroupPart(Part):
    """Groups of M consecutive weights, each of which is whole or cut to its N best.

    A group lies along the input dimension, as sparse tensor cores read it (Mishra et al. 2021,
    arXiv:2104.08378): in a Conv over input channels at one kernel position, in an LSTM or GRU
    within the row of one gate. What competes is the loss of cutting a group, its M - N lowest
    scores pooled. While sparsity rises, the *share of groups that are cut* rises with it; a group
    is cut once, at full, so that masks nest and the sparsity due is met to within a group at every
    step. (Decaying N from M instead, Kao et al. 2022, arXiv:2209.07617, knows only M - N levels.)
    ``schedule: {kind: one_shot, begin: 0}`` holds the pattern from the first update on, as RNM-TD3
    does (arXiv:2602.14578).

    >>> part = GroupPart({"weight": torch.Size([1, 8])}, NofM(2, 4))
    >>> scores = {"weight": torch.tensor([[1.0, 2.0, 3.0, 4.0, 9.0, 8.0, 7.0, 6.0]])}
    >>> part.pool(scores, "sum")
    tensor([ 3., 13.])
    >>> dict(part.expand(torch.tensor([False, True]), scores))["weight"].int().tolist()
    [[0, 0, 1, 1, 1, 1, 1, 1]]
    """

    pattern: NofM
    ranks_within: ClassVar[bool] = True

    @property
    def count(self) -> int:
        """How many groups."""
        return sum(math.prod(shape) for shape in self.shapes.values()) // self.pattern.m

    def pool(self, scores: Named, pooling: str) -> Tensor:
        """Return what each group would lose, ``(groups,)``.

        Args:
            scores: minus infinity for weights that are gone; they lose nothing.
            pooling: a key of `POOLINGS`.
        """
        groups = self._grouped(scores[self.parameters[0]])
        lowest = groups.sort(dim=1).values[:, : self.pattern.m - self.pattern.n]
        lost = POOLINGS[pooling](torch.where(lowest.isneginf(), 0.0, lowest))
        # A NaN sorts above everything, out of the sight of what is pooled.
        return torch.where(groups.isnan().any(dim=1), math.nan, lost)

    def expand(self, keep: Tensor, scores: Named) -> Iterator[tuple[str, Tensor]]:
        """Yield the mask that keeps N of M, ties to the lower index, in groups not kept whole."""
        ((name, shape),) = self.shapes.items()
        order = self._grouped(scores[name]).argsort(dim=1, descending=True, stable=True)
        best = torch.zeros(order.shape, dtype=torch.bool, device=order.device)
        best.scatter_(1, order[:, : self.pattern.n], True)
        best |= keep[:, None]
        outer = [shape[0], *shape[2:], shape[1]]
        yield name, best.view(outer).movedim(-1, 1).contiguous()

    def live(self, free: Mapping[str, Tensor | None]) -> Tensor | None:
        """Return the groups that still have more than N weights."""
        mask = free[self.parameters[0]]
        return None if mask is None else self._grouped(mask).sum(dim=1) > self.pattern.n

    def _grouped(self, values: Tensor) -> Tensor:
        """Reshape ``(out, in, *kernel)`` to ``(groups, m)``."""
        return values.movedim(1, -1).reshape(-1, self.pattern.m)


def group_parts(parameters: Mapping[str, Tensor], pattern: NofM) -> list[Part]:
    """Make each parameter a part whose groups compete."""
    return [GroupPart({name: weight.shape}, pattern) for name, weight in parameters.items()]


def undivided(layer: nn.Module, parameters: Mapping[str, Tensor], pattern: NofM) -> int | None:
    """Return an input dimension of the layer that M does not divide; None where all are divided.

    >>> undivided(nn.Linear(6, 2), dict(nn.Linear(6, 2).named_parameters()), NofM(2, 4))
    6
    """
    sizes = [weight.shape[1] for weight in parameters.values() if weight.dim() > 1]
    return next((size for size in sizes if size % pattern.m), None)
