"""The importance of a whole layer: the return lost without it, which only validations tell."""

from __future__ import annotations

from torch import Tensor


def lost_return(lost_return: Tensor) -> Tensor:
    """Score a whole layer by the mean return that the policy loses without it.

    Measured on the validation seeds, the same for all layers, before each mask update that removes
    one; so it costs as many evaluations as layers stand. Layers of the value net are left out.

    Args:
        lost_return: shape ``(1,)``.

    Returns:
        The same, in units of the return; negative where the policy is better without the layer.
    """
    return lost_return
