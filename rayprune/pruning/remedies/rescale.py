"""Rescaling: what is left of a weight matrix after a cut takes over the norm of the whole."""

from __future__ import annotations

from torch import Tensor

from rayprune.pruning.precision import scored


def keep_norm(weight: Tensor, norm: Tensor) -> float:
    """Scale a weight matrix to the L2 norm that it had, in place; return the factor.

    The next layer then sees inputs of about the size that it has learnt from.

    Args:
        weight: after the cut, any shape.
        norm: L2 norm before it; shape ``()``.

    Returns:
        The factor, at least 1; 1 where nothing is left to scale.

    >>> import torch
    >>> weight = torch.tensor([[3.0, 0.0]])
    >>> keep_norm(weight, torch.tensor(6.0)), weight
    (2.0, tensor([[6., 0.]]))
    """
    left = float(scored(weight).norm())
    factor = float(norm) / left if left > 0 else 1.0
    weight.mul_(factor)
    return factor
