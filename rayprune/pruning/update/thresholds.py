"""Thresholds: prune what has an importance score of at most so much, instead of so many."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from rayprune.pruning.masks.topk import find_cut


def threshold_of(
    spec: Mapping[str, float],
    scores: Sequence[Tensor],
    share: float = 1.0,
    names: Sequence[str] = (),
) -> float | None:
    """Return the threshold that a spec means for the scores of a scope.

    Already pruned weights take part with a score of minus infinity: they rank lowest in a
    percentile and count as 0 in a mean, so that repeating a threshold settles.

    Args:
        spec: ``{"absolute": x}``, ``{"percentile": p}`` or ``{"mean_fraction": f}``, the last
            with ``"of_lowest": k`` for the mean of the lowest k % alone.
        scores: all scores of the scope.
        share: what the schedule scales the threshold by, in [0, 1].
        names: what to call the tensors in an error.

    Returns:
        The score up to which to prune; None when nothing is to be pruned.

    Raises:
        NonFiniteError: a score is NaN.

    >>> scores = [torch.tensor([5.0, 1.0, 2.0, 4.0])]
    >>> threshold_of({"absolute": 1.5}, scores)
    1.5
    >>> threshold_of({"percentile": 50}, scores)
    2.0
    >>> threshold_of({"mean_fraction": 0.5}, scores), threshold_of(
    ...     {"mean_fraction": 1, "of_lowest": 50}, scores
    ... )
    (1.5, 1.5)
    """
    if share <= 0:
        return None
    if "absolute" in spec:
        return spec["absolute"] * share
    total = sum(score.numel() for score in scores)
    if "percentile" in spec:
        rank = _rank(spec["percentile"] * share, total)
        return find_cut(scores, total - rank + 1, names=names).value if rank else None
    lowest = _rank(spec.get("of_lowest", 100.0), total)
    mean = _sum_of_lowest(scores, lowest, names) / lowest
    return spec["mean_fraction"] * share * mean


def _rank(percent: float, total: int) -> int:
    # 55 * 100 / 100 is exact where 0.55 * 100 is not; the rest of the error must not round up.
    return math.ceil(percent * total / 100 - 1e-9)


def _sum_of_lowest(scores: Sequence[Tensor], count: int, names: Sequence[str]) -> float:
    """Sum the ``count`` lowest scores; minus infinity counts as 0."""
    cut = find_cut(scores, sum(score.numel() for score in scores) - count + 1, names=names)
    below, total = 0, 0.0
    for score in scores:
        chosen = score[score < cut.value]
        below += chosen.numel()
        chosen = torch.where(chosen.isneginf(), torch.zeros_like(chosen), chosen)
        total += float(chosen.sum(dtype=torch.float64))
    ties = 0.0 if math.isinf(cut.value) else cut.value * (count - below)
    return total + ties
