"""Biases of hidden units that have lost all incoming weights: they go with the last of those.

A recurrent unit without incoming weights would still move, from step to step, by its biases
alone: no constant, so that nothing behind it could make up for its absence. With them at zero it
stays at zero from a zero state on, and can be removed.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rayprune.pruning.layers.kinds import kind_of
from rayprune.pruning.layers.masked import MaskedLayer
from rayprune.pruning.layers.parametrised import tensor_name


def silent_biases(layer: MaskedLayer) -> dict[str, Tensor]:
    """Return the masks of a recurrent layer's biases; none for others, or if all units live.

    Returns:
        By the bias' name in the layer: bool, its shape, False for units that have lost all of
        their incoming weights, of inputs and of hidden units, in every gate.

    >>> from rayprune.pruning.layers.masked import MaskedGRU
    >>> gru = MaskedGRU(1, 2)
    >>> silent_biases(gru)
    {}
    >>> for name in ("weight_ih_l0", "weight_hh_l0"):
    ...     gru.masks[name] = torch.ones_like(gru.get_parameter(name), dtype=torch.bool)
    ...     gru.masks[name][::2] = False
    >>> silent_biases(gru)["bias_hh_l0"].tolist()
    [False, True, False, True, False, True]
    """
    if not kind_of(layer).recurrent or not layer.bias or getattr(layer, "proj_size", False):
        return {}
    found: dict[str, Tensor] = {}
    masks = {tensor_name(name): mask for name, mask in layer.masks.items()}
    for name in masks:
        if name.startswith("weight_ih"):
            strand = name.removeprefix("weight_ih")  # empty in a cell
            speaks = _speaks(layer, [masks[name], masks.get(f"weight_hh{strand}")])
            if speaks is not None:
                found[f"bias_ih{strand}"] = found[f"bias_hh{strand}"] = speaks
    return found


def _speaks(layer: MaskedLayer, masks: Sequence[Tensor | None]) -> Tensor | None:
    """Return which rows belong to a unit that anything reaches; None if all do."""
    if any(mask is None for mask in masks):
        return None
    size = int(layer.hidden_size)  # type: ignore[arg-type]
    rows = torch.stack([mask.any(1) for mask in masks if mask is not None]).any(0)
    units = rows.view(-1, size).any(0)
    return None if bool(units.all()) else units.repeat(rows.numel() // size)
