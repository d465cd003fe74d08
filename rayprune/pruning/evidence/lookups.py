"""Per-sample gradients of an Embedding, whose inputs are indices of its rows."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rayprune.pruning.precision import scored


def squared_row_gradients(
    layer: nn.Embedding, indices: Tensor, deltas: Tensor, samples: int
) -> Tensor:
    """Return the sum over samples of the squared gradient in each weight of the table.

    Args:
        layer: an Embedding.
        indices: what it was called with; samples first.
        deltas: the gradients at its output, ``(*indices, dimension)``.
        samples: of the minibatch.

    >>> layer = nn.Embedding(2, 1)
    >>> indices = torch.tensor([[0, 0], [0, 1]])
    >>> deltas = torch.tensor([[[1.0], [2.0]], [[3.0], [1.0]]])
    >>> squared_row_gradients(layer, indices, deltas, samples=2)
    tensor([[18.],
            [ 1.]])
    """
    rows = layer.num_embeddings
    flat = indices.reshape(samples, -1)
    own = torch.arange(samples, device=flat.device)[:, None] * rows + flat
    # A sample's gradient in a row is the sum over all places at which it looked the row up.
    pairs, place = own.reshape(-1).unique(return_inverse=True)
    given = scored(deltas.reshape(-1, layer.embedding_dim))
    sums = given.new_zeros(len(pairs), layer.embedding_dim).index_add_(0, place, given)
    total = given.new_zeros(rows, layer.embedding_dim)
    total.index_add_(0, pairs % rows, sums.square_())
    return _without_padding(layer, total)


def squared_lookups(layer: nn.Embedding, indices: Tensor) -> Tensor:
    """Return how often each row was looked up, ``(rows, 1)``: the squared norm of its input."""
    counts = torch.bincount(indices.reshape(-1), minlength=layer.num_embeddings)
    return _without_padding(layer, scored(counts.to(layer.weight.dtype))[:, None])


def _without_padding(layer: nn.Embedding, rows: Tensor) -> Tensor:
    if layer.padding_idx is not None:
        rows[layer.padding_idx] = 0  # never learns
    return rows
