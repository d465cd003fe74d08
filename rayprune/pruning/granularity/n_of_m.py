"""Granularity ``n:m``: N:M sparsity, N of each M consecutive weights along the input dimension."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from rayprune.pruning.checks import Faults
from rayprune.pruning.component import Chosen
from rayprune.pruning.distributions import is_even
from rayprune.pruning.granularity.base import (
    POOLINGS,
    Named,
    Part,
    WithinLayers,
    unmultiplied_faults,
)
from rayprune.pruning.layers.kinds import ROWS_FIRST, Axes, axes_of
from rayprune.pruning.layers.prunable import PrunableLayer

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
    Schedules that are sparse from the start hold the pattern from the first update on, as RNM-TD3
    does (Vrce et al. 2026, arXiv:2602.14578): ``static`` for good, ``set`` and ``rigl`` with mask
    changes that keep it at every moment. They find that rare changes serve reinforcement learning
    best, so take a large ``every``.

    >>> part = GroupPart({"weight": torch.Size([1, 8])}, NofM(2, 4))
    >>> scores = {"weight": torch.tensor([[1.0, 2.0, 3.0, 4.0, 9.0, 8.0, 7.0, 6.0]])}
    >>> part.pool(scores, "sum")
    tensor([ 3., 13.])
    >>> dict(part.expand(torch.tensor([False, True]), scores))["weight"].int().tolist()
    [[0, 0, 1, 1, 1, 1, 1, 1]]
    """

    pattern: NofM
    axes: Axes = ROWS_FIRST
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
        name = self.parameters[0]
        order = self._grouped(scores[name]).argsort(dim=1, descending=True, stable=True)
        best = torch.zeros(order.shape, dtype=torch.bool, device=order.device)
        best.scatter_(1, order[:, : self.pattern.n], True)
        best |= keep[:, None]
        yield name, self.from_swap_rows(best)

    def swap_rows(self, values: Tensor) -> Tensor:
        """Return the groups: what is dropped in one grows back in it, so that the pattern holds."""
        return self._grouped(values)

    def from_swap_rows(self, rows: Tensor) -> Tensor:
        """Return values shaped like the parameter again."""
        shape = self.axes.shape(self.shapes[self.parameters[0]])
        outer = [shape[0], *shape[2:], shape[1]]
        return self.axes.weight(rows.view(outer).movedim(-1, 1)).contiguous()

    def live(self, free: Mapping[str, Tensor | None]) -> Tensor | None:
        """Return the groups that still have more than N weights."""
        mask = free[self.parameters[0]]
        return None if mask is None else self._grouped(mask).sum(dim=1) > self.pattern.n

    def _grouped(self, values: Tensor) -> Tensor:
        """Reshape a weight to ``(groups, m)``, groups lying along its inputs."""
        return self.axes.rows(values).movedim(1, -1).reshape(-1, self.pattern.m)


class NofMGranularity(WithinLayers):
    """N of each M consecutive inputs stay, such as 2:4, 1:4, 1:8; it implies the sparsity."""

    __slots__ = ("pattern",)

    swaps_weights = True
    form = "Of n:m, 0 < n < m, such as '2:4'."

    def __init__(self, name: str, pattern: NofM) -> None:
        super().__init__(name)
        self.pattern = pattern

    @classmethod
    def named(cls, key: str, name: str) -> NofMGranularity | None:
        """Read the pattern."""
        pattern = parse(name)
        return None if pattern is None else cls(name, pattern)

    @property
    def implied_sparsity(self) -> float:
        """What the pattern prunes."""
        return self.pattern.sparsity

    @classmethod
    def conflicts(cls, prefix: str, chosen: Chosen) -> Faults:
        """Yield other targets than the one that the pattern implies, and what else it rules out."""
        yield from _implied(prefix, chosen)
        yield from super().conflicts(prefix, chosen)

    def split(self, layer: nn.Module, parameters: Mapping[str, Tensor]) -> list[Part]:
        """Make each parameter a part whose groups compete."""
        axes = axes_of(layer)
        return [
            GroupPart({n: weight.shape}, self.pattern, axes) for n, weight in parameters.items()
        ]

    def layer_faults(
        self, layers: Sequence[PrunableLayer], protected: Collection[str], tied: Collection[str]
    ) -> list[str]:
        """Return a fault if M does not divide a layer's inputs, or groups of them mean nothing."""
        meaningless = unmultiplied_faults(self.name, layers)
        if meaningless:
            return meaningless
        sizes = {x.name: undivided(x.module, x.parameters, self.pattern) for x in layers}
        wrong = {name: size for name, size in sizes.items() if size is not None}
        if not wrong:
            return []
        each = "; ".join(f"{name!r} has {size} inputs" for name, size in wrong.items())
        return [
            f"`pruning.granularity` {self.name!r} needs layers whose inputs {self.pattern.m} "
            f"divides, but {each}. List {'it' if len(wrong) == 1 else 'them'} under "
            "`pruning.protect`, or take another M."
        ]


def undivided(layer: nn.Module, parameters: Mapping[str, Tensor], pattern: NofM) -> int | None:
    """Return an input dimension of the layer that M does not divide; None where all are divided.

    >>> undivided(nn.Linear(6, 2), dict(nn.Linear(6, 2).named_parameters()), NofM(2, 4))
    6
    """
    axes = axes_of(layer)
    sizes = [axes.shape(weight.shape)[1] for weight in parameters.values() if weight.dim() > 1]
    return next((size for size in sizes if size % pattern.m), None)


def _implied(prefix: str, chosen: Chosen) -> Faults:
    kind, implied = chosen.granularity_name, chosen.granularity.implied_sparsity
    sparsity = chosen.values.get("sparsity")
    distribution = chosen.values.get("distribution", "uniform")
    # 0 is how a dense run of a config is asked for.
    if sparsity not in (None, 0, implied):
        yield (
            f"`{prefix}sparsity` must be left out with granularity {kind!r}, which implies "
            f"{implied:g}, but is {sparsity!r}."
        )
    if chosen.values.get("threshold") is not None:
        yield f"`{prefix}threshold` must be left out with granularity {kind!r}: it keeps N of M."
    if not is_even(distribution):
        yield (
            f"`{prefix}distribution` must be 'uniform' or 'global' with granularity {kind!r}, "
            f"which gives every layer the same sparsity, but is {distribution!r}."
        )
    for name, block in chosen.groups:
        if "sparsity" in block and block["sparsity"] not in (0, implied):
            yield (
                f"`{prefix}groups.{name}.sparsity` must be 0 or {implied:g} with granularity "
                f"{kind!r}, but is {block['sparsity']!r}."
            )
