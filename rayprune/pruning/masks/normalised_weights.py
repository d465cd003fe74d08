"""Masks of weight-normalised layers, as they are written into directions and magnitudes.

A row's weights are its magnitude times its direction over the direction's length. Pruned weights
are zeros of the direction; but of a row that goes as a whole that would be 0 / 0, for evermore.
There the magnitude is zero, and the direction stays as it was.
"""

from __future__ import annotations

from torch import Tensor

from rayprune.pruning.layers.masked import MaskedLayer
from rayprune.pruning.layers.parametrised import kept_lengths, length_of


def written_mask(layer: MaskedLayer, name: str) -> Tensor:
    """Return a parameter's mask as it is written: the mask itself, unless rows are normalised.

    Args:
        layer: a maskable one.
        name: a masked parameter's, in the layer.

    >>> import torch
    >>> from torch import nn
    >>> from rayprune.pruning.layers.attach import make_maskable
    >>> layer = make_maskable(nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)))
    >>> name = "parametrizations.weight.original1"
    >>> layer.masks[name] = torch.tensor([[True, False], [False, False]])
    >>> written_mask(layer, name).tolist()
    [[True, False], [True, True]]
    """
    mask, length = layer.masks[name], length_of(layer, name)
    return mask if length is None else mask | ~kept_lengths(mask, length[2])


def silent_lengths(layer: MaskedLayer) -> dict[str, Tensor]:
    """Return the masks of magnitudes of which the directions have gone as a whole.

    Returns:
        By the magnitudes' name in the layer: bool, their shape; none where all are kept.
    """
    found: dict[str, Tensor] = {}
    for name, mask in layer.masks.items():
        length = length_of(layer, name)
        if length is not None:
            kept = kept_lengths(mask, length[2])
            if not bool(kept.all()):
                found[length[0]] = kept
    return found
