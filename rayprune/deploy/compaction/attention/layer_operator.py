"""An attention layer as one operator of a traced forward, so that it is read as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor, fx, nn

from rayprune.pruning.layers.attention import OUT, arranged_sizes, is_known

NAME: Final = "multihead_attention"
"""The operator's."""

_LIBRARY: Final = torch.library.Library("rayprune", "FRAGMENT")
_LIBRARY.define(
    f"{NAME}(Tensor query, Tensor key, Tensor value, Tensor[] params, str[] names, "
    "Tensor? key_padding_mask, Tensor? attn_mask, int heads, int[] dense, bool batch_first, "
    "bool zero_key, float dropout, bool need_weights, bool average) -> (Tensor, Tensor)"
)


def _shaped(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    params: Sequence[Tensor],
    names: Sequence[str],
    key_padding_mask: Tensor | None,
    attn_mask: Tensor | None,
    heads: int,
    dense: Sequence[int],
    batch_first: bool,
    zero_key: bool,
    dropout: float,
    need_weights: bool,
    average: bool,
) -> tuple[Tensor, Tensor]:
    """Return tensors of the shapes that the layer gives: their values are never looked at."""
    del value, key_padding_mask, attn_mask, dense, dropout
    batch, time, keys = arranged_sizes(query, key, batch_first=batch_first)
    keys += int("bias_k" in names) + int(zero_key)
    width = params[list(names).index(OUT)].shape[0]
    shape = [*batch, *([] if average else [heads]), time, keys] if need_weights else [0]
    return query.new_zeros(*query.shape[:-1], width), query.new_zeros(shape)


_LIBRARY.impl(NAME, _shaped, "CompositeExplicitAutograd")


@contextmanager
def as_operators(module: nn.Module) -> Iterator[None]:
    """Let each attention layer of a module stand for itself while a forward is traced in here."""
    layers: list[Any] = [part for part in module.modules() if is_known(part)]
    own = [vars(layer).get("forward") for layer in layers]
    for layer in layers:
        layer.forward = _standing_for(layer)
    try:
        yield
    finally:
        for layer, forward in zip(layers, own, strict=True):
            del layer.forward
            if forward is not None:
                layer.forward = forward


def forget_unread_weights(graph: fx.Graph) -> None:
    """Have attention layers give no weights where nothing reads them."""
    for node in list(graph.nodes):
        if str(getattr(node.target, "__name__", "")).startswith(NAME):
            weights = [user for user in node.users if user.args[1] == 1]
            if not any(user.users for user in weights):
                node.args = (*node.args[:-2], False, node.args[-1])
                for user in weights:
                    graph.erase_node(user)


def _standing_for(layer: nn.MultiheadAttention) -> Callable[..., tuple[Tensor, Tensor | None]]:
    def forward(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        del is_causal  # a hint at what `attn_mask` is
        named = dict(layer.named_parameters())
        operator: Any = getattr(torch.ops.rayprune, NAME)
        output, weights = operator(
            query,
            key,
            value,
            list(named.values()),
            list(named),
            key_padding_mask,
            attn_mask,
            layer.num_heads,
            list(getattr(layer, "dense", (layer.num_heads, layer.head_dim))),
            layer.batch_first,
            layer.add_zero_attn,
            layer.dropout,
            need_weights,
            average_attn_weights,
        )
        return output, weights if need_weights else None

    return forward
