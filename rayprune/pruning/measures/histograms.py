"""Histograms of scores: what a criterion sees of the weights that are left."""

from __future__ import annotations

from typing import TypedDict

import torch
from torch import Tensor

BINS = 32


class Histogram(TypedDict):
    """Counts of equally wide bins, and the edges between them, one more than counts."""

    counts: list[float]
    edges: list[float]


def histogram_of(scores: Tensor, keep: Tensor | None = None, bins: int = BINS) -> Histogram | None:
    """Count finite scores in equally wide bins from the lowest to the highest.

    Args:
        scores: any shape and device.
        keep: bool, shaped like ``scores``: what is counted; None for all.
        bins: how many.

    Returns:
        The histogram; None where there is nothing to count.

    >>> histogram_of(torch.tensor([0.0, 1.0, 2.0, 2.0, float("nan")]), bins=2)
    {'counts': [1.0, 3.0], 'edges': [0.0, 1.0, 2.0]}
    """
    values = scores.detach().reshape(-1) if keep is None else scores.detach()[keep]
    values = values[torch.isfinite(values)].float()
    if values.numel() == 0:
        return None
    low, high = float(values.min()), float(values.max())
    if low == high:  # as NumPy does, so that a bin has a width
        low, high = low - 0.5, high + 0.5
    counts = torch.histc(values, bins=bins, min=low, max=high)
    return {
        "counts": counts.tolist(),
        "edges": torch.linspace(low, high, bins + 1, dtype=torch.float64).tolist(),
    }
