"""Regrowth: which weights are dropped for which others, and which grow back. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rayprune.pruning.masks.topk import keep_top
from rayprune.pruning.seeds import generator_for


def drop_count(active: int, fraction: float) -> int:
    """Return how many of a layer's active weights are dropped, rounded down as in google-research.

    >>> [drop_count(10, fraction) for fraction in (0.0, 0.29, 0.3, 1.0)]
    [0, 2, 3, 10]
    """
    # 0.29 * 100 is 28.999999999999996.
    return int(active * fraction + 1e-9)


def drop_and_regrow(
    mask: Tensor, scores: Tensor, growth: Tensor, fraction: float, name: str = ""
) -> Tensor:
    """Drop the lowest scores of one parameter, and let as many weights grow by another score.

    Candidates are all weights that are off after the drop, those just dropped among them, as in
    algorithm 1 of Evci et al. 2020 (arXiv:1911.11134) and in google-research/rigl: a weight that is
    dropped and at once regrown simply stays as it was.

    Args:
        mask: bool, the weights that are active.
        scores: shaped like ``mask``, higher = keep.
        growth: shaped like ``mask``, higher = regrow.
        fraction: of the active weights, dropped.
        name: the parameter's, for an error.

    Returns:
        The new mask, with as many active weights as ``mask``.

    Raises:
        NonFiniteError: a score is NaN.

    >>> mask = torch.tensor([True, True, True, True, False, False])
    >>> scores = torch.tensor([4.0, 1.0, 3.0, 2.0, 0.0, 0.0])
    >>> growth = torch.tensor([9.0, 0.0, 0.0, 5.0, 7.0, 2.0])
    >>> drop_and_regrow(mask, scores, growth, 0.5)
    tensor([ True, False,  True,  True,  True, False])
    """
    active = int(torch.count_nonzero(mask))
    count = drop_count(active, fraction)
    if count == 0:
        return mask
    (kept,) = keep_top([scores], active - count, live=[mask], names=[name])
    (grown,) = keep_top([growth], count, live=[~kept], names=[name])
    return kept | grown


def grow(
    candidates: Sequence[Tensor], growth: Sequence[Tensor], count: int, names: Sequence[str] = ()
) -> list[Tensor]:
    """Choose the weights of a scope that grow.

    Args:
        candidates: bool, per parameter, the weights that may grow.
        growth: shaped like ``candidates``, higher = grow.
        count: how many grow, at most all candidates.
        names: the parameters', for an error.

    Returns:
        Bool per parameter, True = grows.

    Raises:
        NonFiniteError: a score is NaN.

    >>> off = [torch.tensor([False, True]), torch.tensor([True, True])]
    >>> grow(off, [torch.tensor([9.0, 1.0]), torch.tensor([3.0, 2.0])], count=2)
    [tensor([False, False]), tensor([True, True])]
    """
    return keep_top(growth, count, live=candidates, names=names)


def random_growth(like: Tensor, seed: int, name: str, index: int) -> Tensor:
    """Draw a growth score for each weight, the same on every rank and device.

    Args:
        like: the parameter.
        seed: the run's.
        name: the parameter's full name.
        index: of the mask update.
    """
    generator = generator_for(seed, f"{name}/regrowth", index)
    # Float64: in float32 a layer of millions would tie, and ties favour low indices.
    drawn = torch.rand(like.shape, generator=generator, dtype=torch.float64)
    return drawn.to(like.device, torch.float64 if like.device.type != "mps" else torch.float32)
