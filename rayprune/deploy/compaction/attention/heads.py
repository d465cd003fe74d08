"""Heads of one attention layer, all of one width: which of their rows stay."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from rayprune.pruning.layers.attention import told_heads


@dataclass(frozen=True, slots=True)
class Heads:
    """The heads of one attention layer, by the channels of their rows."""

    queries: Tensor
    """Shape ``(heads, width)``; rows of keys have the same channels."""
    values: Tensor
    """Shape ``(heads, value width)``."""
    dense: tuple[int, int]
    """How many heads there were before any compaction, and how wide each was."""
    whole: bool
    """Whether none can go: something reads them by their numbers."""

    def fillers(self, kept: Tensor, *, told: bool) -> Tensor:
        """Return channels that must stay for heads to be of one width, though they are dead.

        Args:
            kept: which channels stay; bool, by channel.
            told: whether the shapes alone must tell how many heads are left.

        >>> rows = torch.tensor([[1, 2], [3, 4]])
        >>> heads = Heads(rows, rows + 4, dense=(2, 2), whole=False)
        >>> kept = torch.tensor([True, True, False, True, True, False, True, False, True])
        >>> heads.fillers(kept, told=False).tolist()
        [2]
        """
        rows = [kept[self.queries], kept[self.values]]
        stays = torch.stack([mask.any(1) for mask in rows]).any(0)
        if self.whole:
            stays = torch.ones_like(stays)
        if not stays.any():
            stays[0] = True
        widths = [max(1, int(mask[stays].sum(1).max())) for mask in rows]
        if told:
            stays, widths = self._tellable(stays, widths)
        missing = [
            _first_dead(channels[stays], mask[stays], width)
            for channels, mask, width in zip((self.queries, self.values), rows, widths, strict=True)
        ]
        return torch.cat([*missing, torch.empty(0, dtype=torch.long)])

    def left(self, kept: Tensor) -> int:
        """Return how many heads are left."""
        return int(kept[self.queries].any(1).sum())

    def _tellable(self, stays: Tensor, widths: list[int]) -> tuple[Tensor, list[int]]:
        """Return heads and widths that shapes tell apart: whole heads, or none missing."""
        full = [self.queries.shape[1], self.values.shape[1]]
        every = torch.ones_like(stays)
        options = [(stays, full), *((every, narrower) for narrower in _wider(widths, full))]
        possible = [(s, w) for s, w in options if self._is_told(int(s.sum()), w)]
        return min(possible, key=_rows, default=(every, full))

    def _is_told(self, count: int, widths: list[int]) -> bool:
        rows, out = (count * width for width in widths)
        try:
            return told_heads(rows, out, *self.dense) == count
        except ValueError:
            return False


def _rows(option: tuple[Tensor, list[int]]) -> int:
    stays, (queries, values) = option
    return int(stays.sum()) * (2 * queries + values)


def _wider(widths: list[int], full: list[int]) -> Iterator[list[int]]:
    for queries in range(widths[0], full[0] + 1):
        for values in range(widths[1], full[1] + 1):
            yield [queries, values]


def _first_dead(channels: Tensor, kept: Tensor, width: int) -> Tensor:
    """Return of each head as many dead channels as it takes to reach a width."""
    rank = (~kept).cumsum(1)
    return channels[~kept & (rank <= width - kept.sum(1, keepdim=True))]
