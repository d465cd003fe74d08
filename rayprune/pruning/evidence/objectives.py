"""What importance scores are taken with respect to: a loss, a policy's actions, a divergence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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

    @property
    def tells_actions(self) -> bool:
        """Whether somebody has said what the policy does, in place of the module's plain output."""
        return self.actions is not _outputs

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
