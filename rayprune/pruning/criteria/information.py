"""The importance of a unit: what its activation tells of the policy's action."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from rayprune.pruning.evidence.objectives import Actions

BINS = 16
"""Equally filled bins of an activation, and of a continuous action's mean."""


def information_gain(activations: Tensor, actions: Actions, estimator: str) -> Tensor:
    """Score a unit by the mutual information between its activation and the policy's action.

    Args:
        activations: of a layer's units behind norm and activation function (a filter's mean over
            the image), shape ``(observations, units)``.
        actions: what the policy would do in the same observations.
        estimator: a key of `ESTIMATORS`.

    Returns:
        Scores of shape ``(units,)``, in nats.
    """
    return ESTIMATORS[estimator](activations, actions)


def gaussian_information(activations: Tensor, actions: Actions) -> Tensor:
    """Return the mutual information as if all were jointly Gaussian, ``-log(1 - R^2) / 2``.

    R is the multiple correlation of a unit with the action means, or with the probabilities of
    discrete actions. Exact for Gaussians; for others it measures linear dependence only.

    Args:
        activations: shape ``(observations, units)``.
        actions: of the same observations.

    Returns:
        Shape ``(units,)``, in nats; a unit that never varies tells nothing: 0.
    """
    x = activations - activations.mean(dim=0)
    y = (actions.means - actions.means.mean(dim=0)).to(x.dtype)
    variance = x.square().sum(dim=0).double()
    cross = (y.T @ x).double()
    # Probabilities sum to one, so their covariance has no inverse: leave its null space out.
    inverse = torch.linalg.pinv((y.T @ y).double(), rtol=1e-6, hermitian=True)
    explained = (cross * (inverse @ cross)).sum(dim=0)
    constant = variance <= len(x) * torch.finfo(x.dtype).eps ** 2 * activations.square().amax(dim=0)
    share = torch.where(constant, 0.0, explained / torch.where(constant, 1.0, variance))
    # A unit that is an action itself would tell infinitely much.
    limit = 1 - torch.finfo(x.dtype).eps
    return (-0.5 * torch.log1p(-share.clamp(0, limit))).to(activations.dtype)


def binned_information(activations: Tensor, actions: Actions, bins: int = BINS) -> Tensor:
    """Return the mutual information of a unit's binned activation with the action.

    Bins are equally filled, so that no monotone function of the activation changes anything. Of
    discrete actions the joint table holds probabilities, and the action is the sampled one:
    ``p(bin, a) = mean over observations of 1[bin] * pi(a)``. Of continuous ones the mean is binned
    too. The components of an action count one by one, and add up.

    Args:
        activations: shape ``(observations, units)``.
        actions: of the same observations.
        bins: how many.

    Returns:
        Shape ``(units,)``, in nats. Biased upwards by about ``bins * actions / 2 observations``.
    """
    bins = min(bins, max(2, math.isqrt(len(activations))))
    sizes, shares = list(actions.sizes), actions.means.to(activations.dtype)
    if not sizes:
        sizes = [bins] * actions.means.shape[1]
        shares = functional.one_hot(bin_indices(actions.means, bins), bins).to(activations.dtype)
    joint = _joint(bin_indices(activations, bins), shares.reshape(len(activations), -1), bins)
    gains = [_mutual_information(component) for component in joint.double().split(sizes, dim=2)]
    return torch.stack(gains).sum(dim=0).to(activations.dtype)


def bin_indices(values: Tensor, bins: int) -> Tensor:
    """Return the equally filled bin of each value in its column.

    Args:
        values: shape ``(observations, columns)``. Equal values share a bin.
        bins: how many at most.

    >>> bin_indices(torch.tensor([[3.0], [1.0], [1.0], [9.0]]), 2).T
    tensor([[1, 0, 0, 1]])
    """
    # Sorted along contiguous rows, which is several times faster than along columns.
    columns = values.T.contiguous()
    ranked = columns.sort(dim=1).values
    edges = ranked[:, [round(len(values) * k / bins) for k in range(1, bins)]].contiguous()
    return torch.searchsorted(edges, columns, right=True).T


def _joint(units: Tensor, action: Tensor, bins: int) -> Tensor:
    """Return each unit's joint distribution of bin and action, ``(units, bins, actions)``."""
    tables = [(units == index).to(action.dtype).T @ action for index in range(bins)]
    return torch.stack(tables, dim=1) / len(units)


def _mutual_information(joint: Tensor) -> Tensor:
    outer = joint.sum(dim=2, keepdim=True) * joint.sum(dim=1, keepdim=True)
    ratio = torch.where(joint > 0, joint / outer, 1.0)
    return (joint * ratio.log()).sum(dim=(1, 2)).clamp_(min=0)


ESTIMATORS: Mapping[str, Callable[[Tensor, Actions], Tensor]] = {
    "gaussian": gaussian_information,
    "binned": binned_information,
}
"""How `information_gain` estimates a mutual information."""
