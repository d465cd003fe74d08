"""Penalties that grow sparsity: proximal steps for L1 and for group lasso over output units.

A penalty ``strength * R(w)`` acts after the optimizer's step by its proximal operator with step
``lr * strength``, and not by its subgradient in the loss. Adam divides a subgradient by the size of
the loss's gradients, so that it would shrink each weight by an amount of its own and never to
exactly zero, and it would enter the moments and the clipped norm. Decoupled like AdamW's decay,
every weight shrinks by ``lr * strength`` a step, and small ones end at exactly zero. Compare the
strength with 1: so far, in learning rates, does Adam move a weight whose gradient keeps its sign.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from rayprune.pruning.granularity.neuron import unit_parts
from rayprune.pruning.layers.prunable import PrunableLayer
from rayprune.pruning.precision import scored


def soft_threshold(weight: Tensor, amount: float) -> None:
    """Shrink each weight towards zero, in place: ``sign(w) * max(|w| - amount, 0)``.

    The proximal operator of ``amount * |w|`` (Parikh & Boyd 2014, section 6.5.2).

    Args:
        weight: any shape.
        amount: in units of the weight, at least 0.

    >>> weight = torch.tensor([0.5, -0.25, 0.125])
    >>> soft_threshold(weight, 0.25)
    >>> weight
    tensor([0.2500, -0.0000, 0.0000])
    """
    weight.copy_(weight.sign() * (weight.abs() - amount).clamp_(min=0))


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


def shrink(layer: PrunableLayer, kind: str, amounts: Callable[[nn.Parameter], float]) -> None:
    """Do one proximal step on a layer, in place.

    Args:
        layer: one that may be pruned.
        kind: a key of `rayprune.pruning.penalties.faults.PENALTIES`.
        amounts: parameter -> learning rate times strength.
    """
    weights = layer.parameters
    if kind == "l1":
        for weight in weights.values():
            soft_threshold(weight.data, amounts(weight))
        return
    for part in unit_parts(layer.module, weights):
        named = {name: weights[name].data for name in part.parameters}
        norms = part.pool({name: scored(weight) for name, weight in named.items()}, "l2")
        size = sum(weight.numel() for weight in named.values()) // part.count
        factors = unit_factors(norms, size, amounts(weights[part.parameters[0]]))
        for name, factor in part.expand(factors, {}):
            named[name].mul_(factor)
