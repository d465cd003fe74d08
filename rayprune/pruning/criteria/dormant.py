"""Criterion by dormancy: importance scores of units that hardly ever do anything."""

from __future__ import annotations

import torch
from torch import Tensor


def dormant(activity: Tensor) -> Tensor:
    """Score a unit by its activity as a share of its layer's mean: the most dormant goes first.

    ``s_i = mean |h_i| / mean over the layer's units k of mean |h_k|``, the score of Sokar et al.
    2023 (arXiv:2302.12902), who recycle units at or below tau. ``threshold: {absolute: tau}``
    prunes just those; the paper's tau for deep RL is 0.025 to 0.1. Shares of different layers can
    be compared, as distribution ``global`` does.

    Args:
        activity: mean of the units' absolute activations over the observations (of filters: and
            over the positions), shape ``(units,)``.

    Returns:
        Shape ``(units,)``; a layer that is silent as a whole is all dormant: 0.

    >>> dormant(torch.tensor([0.0, 1.0, 2.0]))
    tensor([0., 1., 2.])
    """
    mean = activity.mean()
    return torch.where(mean > 0, activity / torch.where(mean > 0, mean, 1.0), 0.0)
