"""What an RLModule's policy is, in tensors: its distribution's inputs, log-probability, KL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.distribution.torch.torch_distribution import (
    TorchCategorical,
    TorchDiagGaussian,
    TorchMultiCategorical,
    TorchSquashedGaussian,
)
from torch import Tensor

from rayprune.errors import InputError
from rayprune.pruning.evidence.divergences import (
    diagonal_divergence,
    multi_categorical_divergence,
    squashed_kl,
)
from rayprune.pruning.evidence.objectives import Actions


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy in the observations of one minibatch."""

    inputs: Tensor
    """Of the action distribution: ``(rows, d)``, or ``(rows, time, d)``."""
    distribution: Any
    """RLlib's own, made from them."""
    embeddings: Any = None
    """What a value head may go on from."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many logits each discrete action has; empty for a continuous policy."""
        if isinstance(self.distribution, TorchCategorical):
            return (self.inputs.shape[-1],)
        if isinstance(self.distribution, TorchMultiCategorical):
            return tuple(part.logits.shape[-1] for part in self.distribution._cats)
        return ()

    def log_prob(self, actions: Tensor | None) -> Tensor:
        """Return the log-probability of actions; None takes the greedy ones of discrete policies.

        The score function of sampled actions averages to zero, so that a first-order criterion
        would see noise only; that of the greedy ones doesn't.
        """
        if actions is None:
            parts = self.inputs.split(list(self.sizes), dim=-1)
            return torch.stack([p.log_softmax(-1).amax(-1) for p in parts]).sum(dim=0)
        result: Tensor = self.distribution.logp(actions)
        return result

    def divergence(self, reference: Tensor, changed: Tensor) -> Tensor:
        """Return the KL between policies by their inputs; see `Objective.divergence`."""
        if self.sizes:
            return multi_categorical_divergence(self.sizes)(reference, changed)
        return diagonal_divergence(reference, changed)

    def actions(self) -> Tensor:
        """Return probabilities of discrete actions, means of continuous ones, ``(rows, d)``."""
        flat = self.inputs.flatten(0, -2)
        if self.sizes:
            parts = flat.split(list(self.sizes), dim=-1)
            return torch.cat([part.softmax(dim=-1) for part in parts], dim=-1)
        return flat.chunk(2, dim=-1)[0]

    def described(self, valid: Tensor | None) -> Actions:
        """Return what information gain measures units against."""
        return Actions(self.actions(), self.sizes, valid)


def policy_from(module: Any, found: dict[str, Any]) -> Policy:
    """Return the policy that a module's forward has put out.

    Args:
        module: a TorchRLModule, not wrapped.
        found: what the forward returned.

    Raises:
        InputError: there is no action distribution that has a density.
    """
    inputs = found.get(Columns.ACTION_DIST_INPUTS)
    if inputs is None:
        raise InputError(_no_policy(module, "gives no ACTION_DIST_INPUTS"))
    distribution = module.get_train_action_dist_cls().from_logits(inputs)
    known = (TorchCategorical, TorchMultiCategorical, TorchDiagGaussian, TorchSquashedGaussian)
    if not isinstance(distribution, known):
        raise InputError(_no_policy(module, f"acts by a {type(distribution).__name__}"))
    return Policy(inputs, distribution, found.get(Columns.EMBEDDINGS))


def observed(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a minibatch an EnvRunner would have: observations, recurrent states."""
    return {key: batch[key] for key in (Columns.OBS, Columns.STATE_IN) if key in batch}


def _no_policy(module: Any, why: str) -> str:
    return (
        f"`pruning.criterion` asks for the policy's action distribution, but "
        f"{type(module).__name__} {why}. Take a criterion of weights, such as 'l1', or one of "
        "gradients with `evidence.objective: loss`."
    )


def kl_between(first: Any, second: Any) -> Tensor:
    """Return ``KL(first || second)`` of two of RLlib's action distributions, in nats, by row."""
    if isinstance(first, TorchSquashedGaussian):  # for which RLlib has none
        return squashed_kl(first._dist, second._dist)
    result: Tensor = first.kl(second)
    return result
