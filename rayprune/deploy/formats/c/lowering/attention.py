"""Attention as one operator, and its softmax."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from torch import fx

from rayprune.deploy.formats.c.attention import add_attention, add_softmax
from rayprune.deploy.formats.c.lowering.nodes import Operator, unsupported
from rayprune.deploy.formats.c.program import Program, Value


def _attention(
    program: Program,
    node: fx.Node,
    q: Value,
    k: Value,
    v: Value,
    mask: Value | None = None,
    dropout: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Value:
    if dropout or enable_gqa or q.shape[:-2] != k.shape[:-2]:
        raise unsupported(node, "dropout and heads that share keys aren't known")
    wide = (math.prod(q.shape[:-2]), q.shape[-2], k.shape[-2])
    if mask is not None and not _broadcasts(mask.shape, wide):
        raise unsupported(node, f"its mask of shape {list(mask.shape)} isn't one for all heads")
    return add_attention(program, q, k, v, mask, scale=scale, causal=is_causal)


def _broadcasts(mask: Sequence[int], wide: tuple[int, int, int]) -> bool:
    sizes = (math.prod(mask[:-2]), mask[-2] if len(mask) > 1 else 1)
    return mask[-1] == wide[2] and sizes[0] in (1, wide[0]) and sizes[1] in (1, wide[1])


def _softmax(program: Program, node: fx.Node, x: Value, axis: int, *_: Any) -> Value:
    if axis % len(x.shape) != len(x.shape) - 1:
        raise unsupported(node, "it must be over the last axis")
    return add_softmax(program, x)


OPERATORS: Final[Mapping[str, Operator]] = {
    **dict.fromkeys(("softmax", "_softmax"), _softmax),
    "scaled_dot_product_attention": _attention,
}
