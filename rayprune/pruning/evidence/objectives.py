"""What scores are taken with respect to: a loss, a policy's actions, a divergence."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from rayprune.errors import InputError

OBJECTIVES: Mapping[str, str] = {
    "auto": "`log_prob` (under shapley `kl`) of the policy, plus `value`.",
    "log_prob": "Log-probability of the policy's own actions.",
    "kl": "KL divergence from the unpruned policy, for criteria that evaluate changed policies.",
    "value": "Error of the value output or of the Q-values, as a share of the targets' variance.",
    "loss": "The algorithm's own loss: mean of the dense gradients since the last mask update.",
}
"""What `pruning.evidence.objective` may be, with what it means."""

ANY_GROUP = "*"


@dataclass(frozen=True, slots=True)
class Actions:
    """What a policy would do in each of some observations."""

    means: Tensor
    """Shape ``(observations, d)``: action means, or the probabilities of discrete actions."""
    sizes: tuple[int, ...] = ()
    """Of discrete policies: how many of the ``d`` columns belong to each action component."""
    valid: Tensor | None = None
    """Bool, ``(observations,)``: rows that are no padding; None for all."""


@dataclass(frozen=True, slots=True)
class Objective:
    """What one minibatch says of a module.

    >>> module = nn.Linear(2, 1)
    >>> objective = Objective.of(lambda module, x: module(x).square().mean())
    >>> objective.loss(module, torch.ones(4, 2)).shape
    torch.Size([])
    """

    loss: Callable[[nn.Module, Any], Tensor]
    """``f(module, batch) -> scalar``, the mean over the batch's samples."""
    actions: Callable[[nn.Module, Any], Mapping[str, Actions]]
    """What units are informative of, by layer group; ``*`` stands for every other group."""
    outputs: Callable[[nn.Module, Any], Tensor] | None = None
    """Shape ``(samples, d)``: what coalitions of units are compared in."""
    divergence: Callable[[Tensor, Tensor], Tensor] | None = None
    """``(reference (samples, d), changed (..., samples, d)) -> (..., samples)``, at least 0."""
    groups: Mapping[str, Objective] = field(default_factory=dict)
    """What coalitions are compared in instead, by layer group."""

    @classmethod
    def of(cls, loss: Objective | Callable[[nn.Module, Any], Tensor] | None) -> Objective:
        """Take an objective as it is, and a plain loss with the module's output as actions.

        Without a loss the module is run and no more, which will do for what flows through it.
        """
        if not (loss is None or isinstance(loss, Objective) or callable(loss)):
            raise InputError(
                "`loss` must be a function f(module, batch) -> scalar, but is "
                f"{type(loss).__name__}."
            )
        return loss if isinstance(loss, Objective) else cls(loss or _run, _outputs)

    def of_group(self, group: str) -> Objective:
        """Return what the coalitions of a layer group are compared in."""
        return self.groups.get(group, self)


def _run(module: nn.Module, batch: Any) -> Tensor:
    module(batch)
    return torch.zeros(())


def _outputs(module: nn.Module, batch: Any) -> Mapping[str, Actions]:
    out = module(batch)
    if not isinstance(out, Tensor):
        raise InputError(
            f"The criterion asks what the policy does, but the module gives "
            f"{type(out).__name__} and no tensor of actions. "
            "Pass loss=Objective(loss, actions) with a function that finds them."
        )
    return {ANY_GROUP: Actions(out.reshape(len(out), -1))}


def gaussian_divergence(reference: Tensor, changed: Tensor) -> Tensor:
    """Return the KL between Gaussians of unit variance: half the squared distance of the means.

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
