"""Shapley values: what each unit adds to the policy, averaged over the company it may keep."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:  # it knows layers and granularities, which know the criteria
    from rayprune.pruning.evidence.coalitions import Coalitions


@dataclass(frozen=True, slots=True)
class ShapleyEstimate:
    """Sampled Shapley values, with how far they have converged."""

    values: Tensor
    """Shape ``(units,)``, in units of the coalitions' value; they sum to the whole's gain."""
    standard_error: Tensor
    """Of each value, shape ``(units,)``, over the antithetic pairs; NaN with a single pair."""
    agreement: float
    """Spearman's rank correlation of the values from one half of the pairs and from the other."""


def shapley(coalitions: Coalitions, generator: torch.Generator, permutations: int) -> Tensor:
    """Score a unit by its Shapley value, its mean gain over all orders in which units may join.

    Ancona et al. 2020 (arXiv:2006.05953) prune by it; sampled as Castro et al. 2009
    (doi:10.1016/j.cor.2008.04.004), each order with its reverse (Mitchell et al. 2022,
    arXiv:2104.12199).

    Args:
        coalitions: values growing coalitions of the layer's units.
        generator: draws the orders, the same on every rank.
        permutations: how many orders, reverses included; an even number.

    Returns:
        Scores of shape ``(units,)``, in units of the coalitions' value.
    """
    estimate = estimate_shapley(coalitions, generator, permutations)
    coalitions.estimate = estimate
    return estimate.values


def estimate_shapley(
    coalitions: Coalitions, generator: torch.Generator, permutations: int
) -> ShapleyEstimate:
    """Estimate Shapley values from antithetic pairs of orders.

    With several minibatches each pair sees its own share of them: for the same work more pairs on
    fewer observations each tell more. Every minibatch counts the same, so that the values sum
    exactly to what the whole layer gains over an empty one.

    Args:
        coalitions: as for `shapley`.
        generator: as for `shapley`.
        permutations: as for `shapley`.
    """
    pairs = max(1, permutations // 2)
    shares = _shares(coalitions.batches, pairs)
    gains = torch.stack(
        [_pair_gains(coalitions, generator, [batch for batch, _ in share]) for share in shares]
    )
    weights = torch.tensor([sum(w for _, w in share) for share in shares], dtype=torch.float64)
    values = coalitions.mean_over_processes((weights.to(gains.device)[:, None] * gains).sum(dim=0))
    spread = gains.std(dim=0) if pairs > 1 else torch.full_like(values, math.nan)
    halves = (gains[0::2].mean(dim=0), gains[1::2].mean(dim=0)) if pairs > 1 else (values, values)
    return ShapleyEstimate(values, spread / math.sqrt(pairs), spearman(*halves))


def spearman(first: Tensor, second: Tensor) -> float:
    """Return the correlation of the ranks of two vectors, ties ranked by index.

    >>> spearman(torch.tensor([1.0, 2.0, 5.0]), torch.tensor([10.0, 30.0, 20.0]))
    0.5
    """
    ranks = torch.stack([v.argsort(stable=True).argsort().double() for v in (first, second)])
    return 1.0 if len(first) < 2 else round(float(torch.corrcoef(ranks)[0, 1]), 12)


def _pair_gains(coalitions: Coalitions, generator: torch.Generator, batches: list[int]) -> Tensor:
    """Return each unit's gain in one order and its reverse, averaged over minibatches."""
    # Drawn on the CPU, so that a seed means the same orders on every device.
    order = torch.randperm(coalitions.units, generator=generator)
    total = torch.zeros(coalitions.units, dtype=torch.float64, device=coalitions.device)
    for direction in (order, order.flip(0)):
        joining = direction.to(coalitions.device)
        for batch in batches:
            total[joining] += coalitions.prefixes(joining, batch).diff()
    return total / (2 * len(batches))


def _shares(batches: int, pairs: int) -> list[list[tuple[int, float]]]:
    """Deal minibatches out to pairs, with the weight of each in its pair; weights sum to 1.

    >>> _shares(2, 2), _shares(1, 2)
    ([[(0, 0.5)], [(1, 0.5)]], [[(0, 0.5)], [(0, 0.5)]])
    >>> _shares(4, 2)
    [[(0, 0.25), (2, 0.25)], [(1, 0.25), (3, 0.25)]]
    """
    if batches >= pairs:
        return [[(b, 1 / batches) for b in range(p, batches, pairs)] for p in range(pairs)]
    seen_by = [len(range(b, pairs, batches)) for b in range(batches)]
    return [[(p % batches, 1 / (batches * seen_by[p % batches]))] for p in range(pairs)]
