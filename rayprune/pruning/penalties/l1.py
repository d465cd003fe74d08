"""L1: the proximal step of the sum of magnitudes."""

from __future__ import annotations

from torch import Tensor

from rayprune.pruning.layers.prunable import PrunableLayer
from rayprune.pruning.penalties.base import Amounts, Penalty


class L1Penalty(Penalty):
    """The sum of all weights' magnitudes: single weights go to zero."""

    @classmethod
    def shrink(cls, layer: PrunableLayer, amounts: Amounts) -> None:
        """Do one proximal step on a layer that may be pruned, in place."""
        for weight in layer.parameters.values():
            soft_threshold(weight.data, amounts(weight))


def soft_threshold(weight: Tensor, amount: float) -> None:
    """Shrink each weight towards zero, in place: ``sign(w) * max(|w| - amount, 0)``.

    The proximal operator of ``amount * |w|`` (Parikh & Boyd 2014, section 6.5.2).

    Args:
        weight: any shape.
        amount: in units of the weight, at least 0.

    >>> import torch
    >>> weight = torch.tensor([0.5, -0.25, 0.125])
    >>> soft_threshold(weight, 0.25)
    >>> weight
    tensor([0.2500, -0.0000, 0.0000])
    """
    weight.copy_(weight.sign() * (weight.abs() - amount).clamp_(min=0))
