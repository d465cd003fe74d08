"""Importance scores from gradients, saliency among them: how much the objective feels a weight."""

from __future__ import annotations

from torch import Tensor


def snip(weight: Tensor, gradient: Tensor) -> Tensor:
    """Score a weight by the first-order loss change of removing it, ``|w * dL/dw|``.

    Lee et al. 2019 (arXiv:1810.02340), averaged over minibatches instead of taken once.

    Args:
        weight: layer weight, shape ``(out, in, ...)``.
        gradient: of the objective in ``weight``, same shape, mean over the minibatches.

    Returns:
        Scores shaped like ``weight``, in units of the objective.
    """
    return first_order(weight, gradient).abs()


def taylor(weight: Tensor, gradient: Tensor) -> Tensor:
    """Score a weight by the squared first-order loss change of removing it, ``(w * dL/dw)^2``.

    Molchanov et al. 2019 (arXiv:1906.10771). Weights that go together change the loss by the sum of
    their changes, which may cancel: a unit scores ``(sum of w * dL/dw)^2`` (`GROUPED`).

    Args:
        weight: layer weight, shape ``(out, in, ...)``.
        gradient: of the objective in ``weight``, same shape, mean over the minibatches.

    Returns:
        Scores shaped like ``weight``, in units of the objective squared.
    """
    return first_order(weight, gradient).square()


def fisher(weight: Tensor, fisher_diagonal: Tensor) -> Tensor:
    """Score a weight by the second-order loss change of removing it, ``F_ii * w^2 / 2``.

    Theis et al. 2018 (arXiv:1801.05787), with the diagonal of the empirical Fisher information.

    Args:
        weight: layer weight, shape ``(out, in, ...)``.
        fisher_diagonal: mean over samples of the squared gradient of one sample's objective, same
            shape. A sample of a recurrent network is a sequence, its gradient the sum over time.

    Returns:
        Scores shaped like ``weight``, in units of the objective (a log-probability: of KL).
    """
    return weight.square().mul_(fisher_diagonal).mul_(0.5)


def movement(weight: Tensor, movement: Tensor) -> Tensor:
    """Score a weight by how far training has moved it away from zero, ``-sum_t w_t * dL/dw_t``.

    Sanh et al. 2020 (arXiv:2005.07683), without their learned scores: the sum runs over the
    training's own steps, with the gradients before masking and clipping.

    Args:
        weight: layer weight; only its shape counts.
        movement: the sum, shaped like ``weight``.

    Returns:
        Scores shaped like ``weight``, in units of the loss; negative where weights shrink.
    """
    return movement.view_as(weight)


def first_order(weight: Tensor, gradient: Tensor) -> Tensor:
    """Return a weight's signed first-order share in the objective, ``w * dL/dw``."""
    return weight * gradient
