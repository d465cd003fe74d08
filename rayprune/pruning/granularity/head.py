"""Granularity ``head``: structured pruning of attention, whole heads with all that is theirs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rayprune.errors import ConfigError
from rayprune.pruning.checks import Faults
from rayprune.pruning.component import Chosen
from rayprune.pruning.granularity.base import POOLINGS, Named, Network, Part, WithinLayers
from rayprune.pruning.layers.attention import OUT, PACKED, HeadSizes, head_sizes
from rayprune.pruning.layers.prunable import PrunableLayer


@dataclass(frozen=True, slots=True)
class HeadPart(Part):
    """Heads of one attention layer: their rows of queries, keys and values, and what reads them.

    Michel et al. 2019 (arXiv:1905.10650) remove heads so, by what they matter to the loss.

    >>> part = HeadPart(
    ...     {"in_proj_weight": torch.Size([6, 1]), "out_proj.weight": torch.Size([1, 2])},
    ...     HeadSizes(count=2, width=1, values=1),
    ... )
    >>> scores = {
    ...     "in_proj_weight": torch.tensor([[1.0], [2.0], [1.0], [2.0], [1.0], [2.0]]),
    ...     "out_proj.weight": torch.tensor([[5.0, 9.0]]),
    ... }
    >>> part.pool(scores, "sum")
    tensor([ 8., 15.])
    >>> {name: mask.int().flatten().tolist() for name, mask in part.expand(
    ...     torch.tensor([False, True]), {}
    ... )}
    {'in_proj_weight': [0, 1, 0, 1, 0, 1], 'out_proj.weight': [0, 1]}
    """

    heads: HeadSizes

    @property
    def count(self) -> int:
        """How many heads."""
        return self.heads.count

    def pool(self, scores: Named, pooling: str) -> Tensor:
        """Return each head's score over all of its weights, ``(heads,)``."""
        return POOLINGS[pooling](torch.cat([self._by_head(n, scores[n]) for n in self.shapes], 1))

    def expand(self, keep: Tensor, scores: Named) -> Iterator[tuple[str, Tensor]]:
        """Yield masks of whole heads."""
        for name, shape in self.shapes.items():
            rows = torch.cat([keep.repeat_interleave(size) for size in self._sizes(name)])
            along = rows[None, :] if name.endswith(OUT) else rows[:, None]
            yield name, along.expand(shape).contiguous()

    def _sizes(self, name: str) -> tuple[int, ...]:
        """Return how many rows in turn each head has of a weight; columns of the output's."""
        width, values = self.heads.width, self.heads.values
        if name.endswith(PACKED):
            return width, width, values
        return (values,) if name.endswith((OUT, "v_proj_weight")) else (width,)

    def _by_head(self, name: str, scores: Tensor) -> Tensor:
        """Reshape a weight to ``(heads, weights of the head)``."""
        rows = scores.T if name.endswith(OUT) else scores
        sizes = [size * self.heads.count for size in self._sizes(name)]
        return torch.cat([x.reshape(self.heads.count, -1) for x in rows.split(sizes)], 1)


class HeadGranularity(WithinLayers):
    """Heads of attention: their queries, keys and values, and what reads them."""

    __slots__ = ()

    removes_units = True
    whole_heads = True

    @classmethod
    def conflicts(cls, prefix: str, chosen: Chosen) -> Faults:
        """Yield a criterion that scores single units, which no head is."""
        yield from super().conflicts(prefix, chosen)
        if chosen.criterion.scores == "units":
            yield (
                f"`{prefix}criterion` {chosen.criterion_name!r} scores output units, but "
                f"`{prefix}granularity` 'head' takes many of them together. Take a criterion of "
                "weights such as 'fisher', or granularity 'neuron'."
            )

    def split(self, layer: nn.Module, parameters: Mapping[str, Tensor]) -> list[Part]:
        """Make the heads of an attention layer compete; other layers have none."""
        if not isinstance(layer, nn.MultiheadAttention):
            return []
        shapes = {name: weight.shape for name, weight in parameters.items()}
        return [HeadPart(shapes, head_sizes(layer, parameters))]

    def layers_of(
        self, layers: Sequence[PrunableLayer], network: Network
    ) -> tuple[PrunableLayer, ...]:
        """Return the attention layers of more than one head."""
        del network
        return with_heads(layers, "`granularity` can't be 'head'")


def with_heads(layers: Iterable[PrunableLayer], refusal: str) -> tuple[PrunableLayer, ...]:
    """Return the attention layers of more than one head.

    Args:
        layers: to look among.
        refusal: how the fault begins where there is none.
    """
    held = tuple(layers)
    found = tuple(
        layer
        for layer in held
        if isinstance(layer.module, nn.MultiheadAttention)
        and head_sizes(layer.module, layer.whole).count > 1
    )
    if held and not found:
        raise ConfigError(
            f"{refusal}: the network has no nn.MultiheadAttention of more than one head. Choose "
            "PrunableTransformer, or granularity 'neuron'."
        )
    return found
