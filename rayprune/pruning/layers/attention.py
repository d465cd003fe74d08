"""Multi-head attention with fewer heads, or narrower ones, than torch's own class can have."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional

from rayprune.errors import InputError

PACKED: Final = "in_proj_weight"
"""Queries, keys and values in one weight, one below the other."""
SEPARATE: Final = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
"""Likewise in three, where keys or values come with another width than queries."""
OUT: Final = "out_proj.weight"

Project = Callable[[str, Tensor, Tensor, "Tensor | None"], Tensor]
"""Name of a weight, its inputs, its rows, their biases -> what they make of the inputs."""


@dataclass(frozen=True, slots=True)
class HeadSizes:
    """How many heads there are, and how wide each is."""

    count: int
    width: int
    """Rows of a head in queries, and as many in keys."""
    values: int
    """Rows of a head in values."""


def head_sizes(layer: nn.MultiheadAttention, weights: Mapping[str, Tensor]) -> HeadSizes:
    """Return the sizes of a layer's heads, from the shapes that its weights have, or once had.

    Shapes alone don't tell heads from width. What compaction in mid-training leaves is either whole
    heads, or narrower ones of which none is missing.

    Args:
        layer: whose number of heads is right for its own weights.
        weights: its prunable parameters, by names that end in theirs in the layer.

    >>> layer = nn.MultiheadAttention(8, 4)
    >>> head_sizes(layer, dict(layer.named_parameters()))
    HeadSizes(count=4, width=2, values=2)
    """
    rows, out = _rows(weights)
    if (rows, out) == _rows(dict(layer.named_parameters())):
        count = layer.num_heads
    else:
        count = told_heads(rows, out, *_dense(layer))
    return HeadSizes(count, rows // count, out // count)


def told_heads(rows: int, out: int, heads: int, width: int) -> int:
    """Return how many heads rows are of.

    Args:
        rows: of queries, and as many of keys.
        out: rows of values.
        heads: how many there were.
        width: of each of those.

    Raises:
        InputError: they are of no such layer.

    >>> told_heads(8, 8, heads=4, width=4), told_heads(12, 8, heads=4, width=4)
    (2, 4)
    """
    if rows == out and rows % width == 0:
        return rows // width
    if rows % heads == 0 and out % heads == 0:
        return heads
    raise InputError(
        f"{rows} rows of queries and {out} of values are neither whole heads of {width} nor "
        f"{heads} narrower ones. Take weights that compaction in mid-training has left."
    )


class NarrowAttention(nn.MultiheadAttention):
    """`nn.MultiheadAttention` of any sizes, with the same parameters, arguments and outputs.

    Attention weights that it returns are those of the heads that it has; ``attn_mask`` of three
    dimensions is one for each of them.
    """

    scale: float
    """What scores are multiplied by: it is of the width that heads had at first."""
    dense: tuple[int, int]
    """Heads, and the width of each, that there were at first."""

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend, as torch's own does; see there for arguments, shapes and outputs."""
        if query.is_nested:
            raise InputError(
                "Narrower attention takes no nested tensors. Build nn.TransformerEncoder with "
                "enable_nested_tensor=False, which gives values, not zeros, where keys are padding."
            )
        causal = is_causal and key_padding_mask is None and not need_weights
        if is_causal and attn_mask is None:
            raise InputError("`is_causal` is a hint about `attn_mask`; give that too.")
        one = ArrangedCall(
            batch_first(self, query, key, value),
            merged_mask(self, query, None if causal else attn_mask, key_padding_mask),
            causal=causal,
            dropout=self.dropout if self.training else 0.0,
        )
        output, weights = attend(self, one, need_weights=need_weights)
        if weights is not None and average_attn_weights:
            weights = weights.mean(1)
        if query.dim() == 2:
            return output.squeeze(0), None if weights is None else weights.squeeze(0)
        return output if self.batch_first else output.transpose(0, 1), weights


@dataclass(frozen=True, slots=True)
class ArrangedCall:
    """One call of an attention layer, its arguments brought to one form."""

    inputs: tuple[Tensor, Tensor, Tensor]
    """Queries, keys and values, ``(batch, time, width)``; the same tensor where they are one."""
    mask: Tensor | None
    """What is added to scores, ``(batch or 1, heads or 1, time, keys)``."""
    causal: bool = False
    dropout: float = 0.0


def attend(
    layer: nn.MultiheadAttention,
    call: ArrangedCall,
    *,
    need_weights: bool,
    project: Project | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Compute what an attention layer of any sizes does.

    Args:
        layer: torch's own, or a narrow one.
        call: its arguments.
        need_weights: return the attention weights too, ``(batch, heads, time, keys)``.
        project: what multiplies inputs by weights; by default ``linear``.
    """
    project = _linear if project is None else project
    heads = layer.num_heads
    queries, keys, values = _projected(layer, call.inputs, project)
    keys, values = _extended(layer, keys, values)
    mask = call.mask
    if mask is not None and keys.shape[1] > mask.shape[-1]:
        mask = functional.pad(mask, (0, keys.shape[1] - mask.shape[-1]))
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (queries, keys, values))
    scale = getattr(layer, "scale", 1.0 / math.sqrt(layer.head_dim))
    weights = None
    if need_weights:
        scores = (q * scale) @ k.transpose(-2, -1)
        scores = scores if mask is None else scores + mask
        weights = functional.dropout(torch.softmax(scores, -1), call.dropout)
        mixed = weights @ v
    else:
        mixed = functional.scaled_dot_product_attention(
            q, k, v, mask, call.dropout, call.causal, scale=scale
        )
    joined = mixed.transpose(1, 2).flatten(2)
    return project(OUT, joined, layer.out_proj.weight, layer.out_proj.bias), weights


def batch_first(
    layer: nn.MultiheadAttention, query: Tensor, key: Tensor, value: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return inputs as ``(batch, time, width)``, one tensor where one was given."""
    keys = _batched(layer, key)
    queries = keys if query is key else _batched(layer, query)
    return queries, keys, keys if value is key else _batched(layer, value)


def merged_mask(
    layer: nn.MultiheadAttention, query: Tensor, mask: Tensor | None, padding: Tensor | None
) -> Tensor | None:
    """Return both masks as one that is added to scores, ``(batch or 1, heads or 1, time, keys)``.

    Args:
        layer: what is called.
        query: whose type it takes.
        mask: ``attn_mask``.
        padding: ``key_padding_mask``.
    """
    found: list[Tensor] = []
    if mask is not None:
        added = _additive(mask, query)
        found.append(added if mask.dim() == 2 else added.unflatten(0, (-1, layer.num_heads)))
    if padding is not None:
        added = _additive(padding, query)
        found.append((added if padding.dim() == 2 else added[None])[:, None, None])
    if not found:
        return None
    whole = found[0] if len(found) == 1 else found[0] + found[1]
    return whole[(None,) * (4 - whole.dim())]


def fit_attention(layer: nn.MultiheadAttention, heads: int | None = None) -> None:
    """Make an attention layer say the sizes that its parameters have, in place.

    Where torch's own class can't have them its class becomes `NarrowAttention`. A subclass of a
    user's is left alone.

    Args:
        layer: whose parameters may be of other sizes than it says.
        heads: how many it has now; None where the shapes tell, see `head_sizes`.

    >>> layer = nn.MultiheadAttention(8, 4, batch_first=True)
    >>> layer.in_proj_weight = nn.Parameter(torch.ones(12, 8))
    >>> layer.in_proj_bias = nn.Parameter(torch.ones(12))
    >>> layer.out_proj.weight = nn.Parameter(torch.ones(8, 4))
    >>> fit_attention(layer)
    >>> type(layer).__name__, layer.num_heads, layer(*torch.ones(3, 1, 5, 8))[0].shape
    ('NarrowAttention', 2, torch.Size([1, 5, 8]))
    """
    if not is_known(layer):
        return
    weights = dict(layer.named_parameters())
    rows, out = _rows(weights)
    narrow = isinstance(layer, NarrowAttention)
    if not narrow and _is_torchs(layer, weights, rows, out):
        return
    dense = _dense(layer)
    if heads is None:
        said = layer.num_heads * layer.head_dim, layer.out_proj.in_features
        heads = layer.num_heads if said == (rows, out) else told_heads(rows, out, *dense)
    if not narrow:
        layer.__class__ = getattr(type(layer), "narrowed", NarrowAttention)
        layer.__dict__["dense"] = dense
        layer.__dict__["scale"] = 1.0 / math.sqrt(dense[1])
        # Or torch's fast paths would take it for one of torch's own.
        layer._qkv_same_embed_dim = False
    read = [weights[PACKED]] * 3 if PACKED in weights else [weights[name] for name in SEPARATE]
    layer.num_heads, layer.head_dim = heads, rows // heads
    layer.embed_dim, layer.kdim, layer.vdim = (weight.shape[1] for weight in read)
    layer.out_proj.out_features, layer.out_proj.in_features = layer.out_proj.weight.shape


def arranged_sizes(
    query: Tensor, key: Tensor, *, batch_first: bool
) -> tuple[tuple[int, ...], int, int]:
    """Return the batch's size, if there is a batch, and how many queries and keys there are.

    >>> arranged_sizes(torch.zeros(5, 2, 8), torch.zeros(6, 2, 8), batch_first=False)
    ((2,), 5, 6)
    """
    if query.dim() == 2:
        return (), query.shape[0], key.shape[0]
    batch, time = (0, 1) if batch_first else (1, 0)
    return (query.shape[batch],), query.shape[time], key.shape[time]


def is_known(layer: nn.Module) -> TypeGuard[nn.MultiheadAttention]:
    """Whether a layer is torch's own attention, or a narrow one, with masks or without.

    Not so of a subclass of a user's, whose forward may be another.
    """
    kind = type(layer)
    return kind in (nn.MultiheadAttention, NarrowAttention) or "narrowed" in vars(kind)


def _is_torchs(
    layer: nn.MultiheadAttention, weights: Mapping[str, Tensor], rows: int, out: int
) -> bool:
    width = layer.embed_dim
    reads = {PACKED: width, **dict(zip(SEPARATE, (width, layer.kdim, layer.vdim), strict=True))}
    return rows == out == weights[OUT].shape[0] == width and all(
        weights[name].shape[1] == size for name, size in reads.items() if name in weights
    )


def _dense(layer: nn.MultiheadAttention) -> tuple[int, int]:
    """Return how many heads there were at first, and how wide each was."""
    if isinstance(layer, NarrowAttention):
        return layer.dense
    return layer.num_heads, layer.head_dim


def _rows(weights: Mapping[str, Tensor]) -> tuple[int, int]:
    """Return the rows of queries, and those of values."""
    out = _ending_in(weights, OUT).shape[1]
    packed = [weight for name, weight in weights.items() if name.endswith(PACKED)]
    if packed:
        return (packed[0].shape[0] - out) // 2, out
    return _ending_in(weights, SEPARATE[0]).shape[0], out


def _ending_in(weights: Mapping[str, Tensor], name: str) -> Tensor:
    return next(weight for full, weight in weights.items() if full.endswith(name))


def _linear(name: str, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    del name
    return functional.linear(x, weight, bias)


def _projected(
    layer: nn.MultiheadAttention, inputs: tuple[Tensor, Tensor, Tensor], project: Project
) -> Sequence[Tensor]:
    weight, bias = layer.in_proj_weight, layer.in_proj_bias
    rows, out = _rows(dict(layer.named_parameters()))
    sizes = [rows, rows, out]
    if weight is not None and inputs[0] is inputs[1] is inputs[2]:
        together: tuple[Tensor, ...] = project(PACKED, inputs[0], weight, bias).split(sizes, -1)
        return together
    if weight is not None:
        names, parts = [PACKED] * 3, weight.split(sizes)
    else:
        names, parts = list(SEPARATE), tuple(getattr(layer, name) for name in SEPARATE)
    biases = [None] * 3 if bias is None else bias.split(sizes)
    return [project(*given) for given in zip(names, inputs, parts, biases, strict=True)]


def _extended(layer: nn.MultiheadAttention, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Add the key that is learned, and the one that is zero, where the layer has them."""
    if layer.bias_k is not None and layer.bias_v is not None:
        keys = torch.cat([keys, layer.bias_k.expand(len(keys), -1, -1)], 1)
        values = torch.cat([values, layer.bias_v.expand(len(values), -1, -1)], 1)
    if layer.add_zero_attn:
        keys, values = (functional.pad(x, (0, 0, 0, 1)) for x in (keys, values))
    return keys, values


def _batched(layer: nn.MultiheadAttention, x: Tensor) -> Tensor:
    if x.dim() == 2:
        return x.unsqueeze(0)
    return x if layer.batch_first else x.transpose(0, 1)


def _additive(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype == torch.bool:
        zeros = torch.zeros(mask.shape, dtype=like.dtype, device=mask.device)
        return zeros.masked_fill(mask, -math.inf)
    return mask.to(like.dtype)
