"""Group lasso: the proximal step of the sum of output units' norms."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rayprune.pruning.checks import Faults
from rayprune.pruning.component import Chosen
from rayprune.pruning.granularity.neuron import unit_parts
from rayprune.pruning.layers.prunable import PrunableLayer
from rayprune.pruning.penalties.base import Amounts, Penalty, unit_conflicts
from rayprune.pruning.precision import scored


class GroupLassoPenalty(Penalty):
    """The sum of all output units' norms, by the root of their size: units go."""

    spares_heads = True

    @classmethod
    def shrink(cls, layer: PrunableLayer, amounts: Amounts) -> None:
        """Do one proximal step on a layer that may be pruned, in place."""
        weights = layer.parameters
        for part in unit_parts(layer.module, weights):
            named = {name: weights[name].data for name in part.parameters}
            norms = part.pool({name: scored(weight) for name, weight in named.items()}, "l2")
            size = sum(weight.numel() for weight in named.values()) // part.count
            factors = unit_factors(norms, size, amounts(weights[part.parameters[0]]))
            for name, factor in part.expand(factors, {}):
                named[name].mul_(factor)

    @classmethod
    def conflicts(cls, prefix: str, chosen: Chosen) -> Faults:
        """Yield the fault of units that are shrunk, but never go."""
        yield from super().conflicts(prefix, chosen)
        yield from unit_conflicts(prefix, chosen)


def unit_factors(norms: Tensor, size: int, amount: float) -> Tensor:
    """Return what group lasso's proximal operator multiplies each unit by.

    ``max(1 - amount * sqrt(size) / norm, 0)``: Yuan & Lin 2006
    (doi:10.1111/j.1467-9868.2005.00532.x); for a network's filters Wen et al. 2016
    (arXiv:1608.03665).

    Args:
        norms: L2 norm of each unit's weights, shape ``(units,)``.
        size: weights of one unit.
        amount: in units of the weight, at least 0.

    Returns:
        Shape ``(units,)``, in [0, 1]; 0 for a unit that is zero already.

    >>> unit_factors(torch.tensor([4.0, 1.0, 0.0]), size=4, amount=1.0)
    tensor([0.5000, 0.0000, 0.0000])
    """
    return torch.where(norms > 0, 1.0 - amount * math.sqrt(size) / norms, 0.0).clamp_(min=0)
