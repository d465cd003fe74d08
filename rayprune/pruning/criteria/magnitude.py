"""Importance scores that read nothing but the weights: magnitude pruning and its kin."""

from __future__ import annotations

import torch
from torch import Tensor

TINY = torch.finfo(torch.float64).tiny


def l1(weight: Tensor) -> Tensor:
    """Score a weight by its magnitude, ``|w|``.

    Han et al. 2015 (arXiv:1506.02626).

    Args:
        weight: any shape.

    Returns:
        Scores shaped like ``weight``, in units of the weight.

    >>> l1(torch.tensor([0.5, -2.0]))
    tensor([0.5000, 2.0000])
    """
    return weight.abs()


def l2(weight: Tensor) -> Tensor:
    """Score a weight by its square, ``w^2``.

    Ranks single weights as `l1` does; units pooled by sum or mean it ranks by their energy.

    Args:
        weight: any shape.

    Returns:
        Scores shaped like ``weight``, in units of the weight squared.

    >>> l2(torch.tensor([0.5, -2.0]))
    tensor([0.2500, 4.0000])
    """
    return weight.square()


def random(weight: Tensor, generator: torch.Generator) -> Tensor:
    """Score a weight by chance, uniform in [0, 1): the baseline that a criterion must beat.

    Drawn on the CPU, so that a seed means the same mask on every device.

    Args:
        weight: any shape; only its shape and device count.
        generator: a CPU generator.

    Returns:
        Scores shaped like ``weight``, without unit, float32.

    >>> random(torch.zeros(2, 3), torch.Generator().manual_seed(0)).shape
    torch.Size([2, 3])
    """
    scores = torch.rand(weight.shape, generator=generator, dtype=torch.float32)
    return scores.to(weight.device)


def relative(weight: Tensor) -> Tensor:
    """Score a weight by its share of the layer's total, ``|w| / sum |w|``.

    A recurrent layer's weight tensors each count as a layer. A tensor of zeros scores 0.

    Args:
        weight: any shape.

    Returns:
        Scores shaped like ``weight``, without unit, summing to 1.

    >>> relative(torch.tensor([3.0, -1.0]))
    tensor([0.7500, 0.2500])
    """
    magnitude = weight.abs()
    return magnitude.div_(_nonzero(magnitude.sum()))


def normalised(weight: Tensor) -> Tensor:
    """Score a weight by its share of the layer's largest, ``|w| / max |w|``.

    A recurrent layer's weight tensors each count as a layer. A tensor of zeros scores 0.

    Args:
        weight: any shape.

    Returns:
        Scores shaped like ``weight``, without unit, in [0, 1].

    >>> normalised(torch.tensor([2.0, -1.0]))
    tensor([1.0000, 0.5000])
    """
    magnitude = weight.abs()
    return magnitude.div_(_nonzero(magnitude.max()))


def lamp(weight: Tensor) -> Tensor:
    """Score a weight by ``w^2`` over the sum of all squares in the layer that are not smaller.

    Lee et al. 2021 (arXiv:2010.07611). Made for the global distribution: each layer's largest
    weight scores 1, so no layer is emptied. Among equal weights the lower index scores higher.

    Args:
        weight: any shape.

    Returns:
        Scores shaped like ``weight``, without unit, in [0, 1].

    >>> lamp(torch.tensor([1.0, -2.0, 1.0]))
    tensor([0.2000, 1.0000, 0.1667])
    """
    square = weight.reshape(-1).square()
    descending, order = square.sort(descending=True, stable=True)
    # Summed in float64: float32 stops growing after some 10 million terms.
    not_smaller = descending.cumsum(0, dtype=torch.float64).clamp_(min=TINY)
    scores = torch.empty_like(square)
    scores[order] = (descending / not_smaller).to(square.dtype)
    return scores.view(weight.shape)


def _nonzero(total: Tensor) -> Tensor:
    return torch.where(total == 0, torch.ones_like(total), total)
