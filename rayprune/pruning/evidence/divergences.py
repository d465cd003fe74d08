"""Kullback-Leibler divergences between policies: categorical, Gaussian, squashed.

Of a reference policy from a changed one, in nats. What compares many changed policies at a time is
called a divergence, and makes one tensor of their size; what is differentiated is called a KL.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence


def gaussian_divergence(reference: Tensor, changed: Tensor) -> Tensor:
    """Return the KL between Gaussians of unit variance: half the squared distance of the means.

    For an `Objective` of one's own, whose outputs are means without a spread.

    Args:
        reference: shape ``(samples, d)``.
        changed: shape ``(..., samples, d)``.

    >>> gaussian_divergence(torch.zeros(1, 2), torch.tensor([[3.0, 1.0]]))
    tensor([5.])
    """
    return (changed - reference).square().sum(dim=-1).mul_(0.5)


def categorical_divergence(reference: Tensor, changed: Tensor) -> Tensor:
    """Return the KL from reference to changed logits, ``sum p (log p - log q)``.

    Args:
        reference: logits, shape ``(samples, actions)``.
        changed: logits, shape ``(..., samples, actions)``.

    >>> categorical_divergence(torch.zeros(1, 2), torch.tensor([[5.0, 5.0]]))
    tensor([0.])
    """
    log_p = reference.log_softmax(dim=-1)
    p = log_p.exp()
    # log q = z - logsumexp z, so that only one tensor of the changed logits' size is made.
    constant = (p * log_p).sum(dim=-1)
    return constant - (changed * p).sum(dim=-1) + torch.logsumexp(changed, dim=-1)


def categorical_kl(reference: Tensor, changed: Tensor) -> Tensor:
    """Return the KL from reference to changed logits, exact to rounding where they nearly agree.

    `categorical_divergence` subtracts sums as large as the logits; here every term is small, as are
    its gradients, which a student close to its teacher needs.

    Args:
        reference: logits, shape ``(..., actions)``.
        changed: likewise.

    >>> same = torch.tensor([[0.0, 1.0]])
    >>> categorical_kl(same, same + 5.0).abs().max() < 1e-6
    tensor(True)
    """
    wanted, given = torch.log_softmax(reference, -1), torch.log_softmax(changed, -1)
    return (wanted.exp() * (wanted - given)).sum(-1)


def squashed_kl(reference: Normal, changed: Normal) -> Tensor:
    """Return the KL between Gaussians that are squashed by one bijection, which leaves it as it is.

    Args:
        reference: before it is squashed, independent over the last dimension.
        changed: likewise.

    >>> squashed_kl(Normal(torch.zeros(1, 2), 1.0), Normal(torch.tensor([[3.0, 1.0]]), 1.0))
    tensor([5.])
    """
    found: Tensor = kl_divergence(reference, changed).sum(-1)
    return found


def diagonal_divergence(reference: Tensor, changed: Tensor) -> Tensor:
    """Return the KL between diagonal Gaussians, squashed alike or not.

    Args:
        reference: means and logarithms of standard deviations, ``(samples, 2 * d)``.
        changed: likewise, ``(..., samples, 2 * d)``.

    >>> diagonal_divergence(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))
    tensor([0.5000])
    """
    mean, log_std = reference.chunk(2, dim=-1)
    other, log_other = changed.chunk(2, dim=-1)
    spread = ((mean - other).square() + (2 * log_std).exp()) * (-2 * log_other).exp()
    return (log_other - log_std + 0.5 * spread - 0.5).sum(dim=-1)


def multi_categorical_divergence(
    sizes: Sequence[int],
) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the KL of several independent discrete actions, whose logits lie side by side.

    Args:
        sizes: how many logits each has.
    """

    def divergence(reference: Tensor, changed: Tensor) -> Tensor:
        pairs = zip(
            reference.split(list(sizes), dim=-1), changed.split(list(sizes), dim=-1), strict=True
        )
        return torch.stack([categorical_divergence(*pair) for pair in pairs]).sum(dim=0)

    return divergence
