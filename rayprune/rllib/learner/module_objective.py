"""What scores are taken with respect to (`pruning.evidence.objective`), for one RLModule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from torch import Tensor, nn

from rayprune.errors import InputError
from rayprune.pruning.evidence.batches import FISHER
from rayprune.pruning.evidence.objectives import ANY_GROUP, Actions, Objective
from rayprune.rllib.algorithms import family_of_module
from rayprune.rllib.algorithms.policy import Policy
from rayprune.rllib.algorithms.values import TINY_VARIANCE, side_by_side

POLICY, VALUE = "policy", "value"


class ModuleObjective:
    """Puts `pruning.evidence.objective` in terms of one RLModule."""

    def __init__(
        self, learner: TorchLearner, module_id: str, name: str, wanted: frozenset[str]
    ) -> None:
        self._config = learner.config.get_config_for_module(module_id)
        module = learner.module[module_id].unwrapped()
        self._family = family_of_module(module)
        self._temperature = self._family.temperature(learner, module_id)
        self._name = name
        self._divergence = no_divergence
        self._width = 0
        # A mean gradient needs actions whose score doesn't average out; a square does not.
        self._greedy = FISHER not in wanted
        self._valued = self._family.has_values(module)
        if name == "value" and not self._valued:
            raise InputError(
                f"`pruning.evidence.objective` is 'value', but {type(learner).__name__}'s module "
                "has no value output. Take 'log_prob' or 'loss'."
            )

    def build(self) -> Objective:
        """Return the objective."""
        policy = Objective(self._loss, self._actions, *self._compared_by(POLICY))
        if not self._valued:
            return policy
        value = Objective(self._loss, self._actions, *self._compared_by(VALUE))
        both = Objective(self._loss, self._actions, *self._compared_by(ANY_GROUP))
        return Objective(
            self._loss,
            self._actions,
            *self._compared_by(ANY_GROUP),
            groups={POLICY: policy, VALUE: value, ANY_GROUP: both},
        )

    def _loss(self, module: nn.Module, batch: dict[str, Any]) -> Tensor:
        valid = valid_rows(batch)
        total: Tensor | None = None
        policy: Policy | None = None
        if self._name in ("auto", "log_prob", "kl"):
            policy = self._family.policy(module, batch)
            greedy = self._greedy and bool(policy.sizes)
            log_prob = policy.log_prob(None if greedy else batch[Columns.ACTIONS]).flatten()
            total = -(log_prob if valid is None else log_prob[valid]).mean()
        if self._name in ("auto", "value") and self._valued:
            embeddings = None if policy is None else policy.embeddings
            values = self._family.values(module, batch, self._config, self._temperature, embeddings)
            error = values.error(valid)
            total = error if total is None else total + error
        assert total is not None
        return total

    def _actions(self, module: nn.Module, batch: dict[str, Any]) -> Mapping[str, Actions]:
        valid = valid_rows(batch)
        found = {ANY_GROUP: self._family.policy(module, batch).described(valid)}
        if self._valued:
            found[VALUE] = Actions(
                side_by_side(self._family.value_outputs(module, batch)), (), valid
            )
        return found

    def _compared_by(
        self, group: str
    ) -> tuple[Callable[[nn.Module, Any], Tensor], Callable[[Tensor, Tensor], Tensor]]:
        """Return outputs and divergence for the units of a layer group."""
        if self._name == "log_prob":
            return self._log_probs, _difference
        if self._name == "value" or (group == VALUE and self._valued):
            return self._values, _error
        if group == POLICY or not self._valued:
            return self._policy, self._kl
        return self._policy_and_values, self._kl_and_error

    def _policy(self, module: nn.Module, batch: dict[str, Any]) -> Tensor:
        policy = self._family.policy(module, batch)
        self._divergence = policy.divergence
        return _kept(policy.inputs.flatten(0, -2), valid_rows(batch))

    def _kl(self, reference: Tensor, changed: Tensor) -> Tensor:
        return self._divergence(reference, changed)

    def _values(self, module: nn.Module, batch: dict[str, Any]) -> Tensor:
        return _kept(side_by_side(self._family.value_outputs(module, batch)), valid_rows(batch))

    def _policy_and_values(self, module: nn.Module, batch: dict[str, Any]) -> Tensor:
        inputs, values = self._policy(module, batch), self._values(module, batch)
        self._width = inputs.shape[-1]
        return torch.cat([inputs, values], dim=-1)

    def _kl_and_error(self, reference: Tensor, changed: Tensor) -> Tensor:
        width = self._width
        kl = self._divergence(reference[..., :width], changed[..., :width])
        return kl + _error(reference[..., width:], changed[..., width:])

    def _log_probs(self, module: nn.Module, batch: dict[str, Any]) -> Tensor:
        policy, actions = self._family.policy(module, batch), batch[Columns.ACTIONS]
        # Several coalitions at a time come as so many times the rows.
        times = len(policy.inputs) // len(actions)
        log_prob = policy.log_prob(actions.repeat(times, *[1] * (actions.dim() - 1)))
        return _kept(log_prob.reshape(-1, 1), valid_rows(batch))


def no_divergence(reference: Tensor, changed: Tensor) -> Tensor:
    """Stand for a divergence that is known once the policy's outputs are."""
    raise AssertionError("outputs come first")


def valid_rows(batch: Mapping[str, Any]) -> Tensor | None:
    """Return which rows of a minibatch are no padding, shape ``(rows,)``; None if all are."""
    mask = batch.get(Columns.LOSS_MASK)
    return None if mask is None else mask.flatten().bool()


def _kept(rows: Tensor, valid: Tensor | None) -> Tensor:
    """Drop padded rows; ``rows`` may hold those of several coalitions, one after the other."""
    if valid is None:
        return rows
    return rows.reshape(-1, len(valid), rows.shape[-1])[:, valid].flatten(0, 1)


def _difference(reference: Tensor, changed: Tensor) -> Tensor:
    """Return how far a log-probability has fallen."""
    return (reference - changed).sum(dim=-1)


def _error(reference: Tensor, changed: Tensor) -> Tensor:
    """Return half the squared change of values, as a share of their variance."""
    spread = reference.var(dim=0, unbiased=False).clamp(min=TINY_VARIANCE)
    return ((changed - reference).square() / (2 * spread)).sum(dim=-1)
