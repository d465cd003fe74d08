"""Evidence for criteria, from the minibatches that a Learner trains on.

The Learner's last minibatches are kept by reference, and looked at when a mask update is due. What
RL cares about (`pruning.evidence.objective`) is put in terms of the RLModule here; the measuring is
`rayprune.pruning`'s.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from torch import Tensor, nn

from rayprune.errors import InputError
from rayprune.pruning.evidence.batches import COALITIONS, FISHER, sample_count
from rayprune.pruning.evidence.objectives import ANY_GROUP, Actions, Objective
from rayprune.pruning.evidence.table import Evidence
from rayprune.pruning.pruner import Pruner
from rayprune.rllib.algorithms.policy import Policy, policy_of
from rayprune.rllib.algorithms.values import TINY_VARIANCE, has_values, value_outputs, values_of
from rayprune.rllib.learner import ranks
from rayprune.rllib.learner.extension import Extension, LearnerView

POLICY, VALUE = "policy", "value"


class MinibatchEvidence(Extension):
    """Keeps a Learner's last minibatches, and measures on them when a mask update is due."""

    def __init__(self, view: LearnerView) -> None:
        super().__init__(view)
        self._held: dict[str, deque[dict[str, Any]]] = {}
        self._given: dict[str, Evidence] = {}
        self.convergence: dict[str, dict[str, dict[str, float]]] = {}
        """Of Shapley values: module id -> layer's parameter -> standard error and agreement."""

    def on_batch(self, batch: Mapping[str, Any]) -> None:
        """Keep a reference to a minibatch, where a criterion will look at it."""
        for module_id, pruner in self._view.pruners.items():
            if module_id not in batch or not pruner.measures:
                continue
            limits = pruner.config.evidence
            held = self._held.setdefault(module_id, deque())
            # Observations first: their rows are what counts as samples.
            held.append({Columns.OBS: batch[module_id][Columns.OBS], **batch[module_id]})
            while len(held) > 1 and (
                len(held) > limits["minibatches"] or _rows_in(held) > limits["observations"]
            ):
                held.popleft()

    def on_barrier(self) -> None:
        """Let all minibatches go: a checkpoint holds none, and a run resumed must equal one not."""
        self._held.clear()

    def gather(self, module_id: str, pruner: Pruner) -> Evidence:
        """Gather what a Pruner's criterion asks for, the same on every Learner.

        Raises:
            InputError: no minibatch was seen, or the objective isn't the module's.
        """
        config = pruner.config
        wanted = pruner.measures
        if not wanted:
            return Evidence()
        held = self._held.get(module_id)
        if not held:
            raise InputError(
                f"`criterion` {config.criterion!r} needs observations from training, and there are "
                "none yet. Use `rayprune train` (with `start_from` for a policy that is trained "
                "already), or a criterion that reads weights only, such as 'l1'."
            )
        module, learner = self._view.module(module_id), self._view.learner
        objective = Objectives(learner, module_id, config.evidence["objective"], wanted).build()
        # SAC's modules draw actions when they are run; training must not notice.
        with generator_kept(pruner.seed, module):
            found = pruner.measure(list(held), objective, ranks.over_learners(), wanted)
        self._given[module_id] = found
        return found

    def on_spread(self, module_id: str) -> None:
        """Keep how far Shapley values have converged, once they were used, and no more of it."""
        games = self._given.pop(module_id, Evidence()).tables.get(COALITIONS, {})
        found = {name: game.estimate for name, game in games.items() if game.estimate is not None}
        if found:
            self.convergence[module_id] = {
                name: {
                    "standard_error": float(estimate.standard_error.mean()),
                    "agreement": estimate.agreement,
                }
                for name, estimate in found.items()
            }


class Objectives:
    """Puts `pruning.evidence.objective` in terms of one RLModule."""

    def __init__(
        self, learner: TorchLearner, module_id: str, name: str, wanted: frozenset[str]
    ) -> None:
        self._config = learner.config.get_config_for_module(module_id)
        alphas = getattr(learner, "curr_log_alpha", None)
        self._alpha = math.exp(float(alphas[module_id])) if alphas is not None else 0.0
        self._name = name
        self._divergence = no_divergence
        self._width = 0
        # A mean gradient needs actions whose score doesn't average out; a square does not.
        self._greedy = FISHER not in wanted
        self._valued = has_values(learner.module[module_id].unwrapped())
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
        valid = _valid(batch)
        total: Tensor | None = None
        policy: Policy | None = None
        if self._name in ("auto", "log_prob", "kl"):
            policy = policy_of(module, batch)
            greedy = self._greedy and bool(policy.sizes)
            log_prob = policy.log_prob(None if greedy else batch[Columns.ACTIONS]).flatten()
            total = -(log_prob if valid is None else log_prob[valid]).mean()
        if self._name in ("auto", "value") and self._valued:
            embeddings = None if policy is None else policy.embeddings
            values = values_of(module, batch, self._config, self._alpha, embeddings)
            error = values.error(valid)
            total = error if total is None else total + error
        assert total is not None
        return total

    def _actions(self, module: nn.Module, batch: dict[str, Any]) -> Mapping[str, Actions]:
        valid = _valid(batch)
        found = {ANY_GROUP: policy_of(module, batch).described(valid)}
        if self._valued:
            found[VALUE] = Actions(value_outputs(module, batch), (), valid)
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
        policy = policy_of(module, batch)
        self._divergence = policy.divergence
        return _valid_rows(policy.inputs.flatten(0, -2), _valid(batch))

    def _kl(self, reference: Tensor, changed: Tensor) -> Tensor:
        return self._divergence(reference, changed)

    def _values(self, module: nn.Module, batch: dict[str, Any]) -> Tensor:
        return _valid_rows(value_outputs(module, batch), _valid(batch))

    def _policy_and_values(self, module: nn.Module, batch: dict[str, Any]) -> Tensor:
        inputs, values = self._policy(module, batch), self._values(module, batch)
        self._width = inputs.shape[-1]
        return torch.cat([inputs, values], dim=-1)

    def _kl_and_error(self, reference: Tensor, changed: Tensor) -> Tensor:
        width = self._width
        kl = self._divergence(reference[..., :width], changed[..., :width])
        return kl + _error(reference[..., width:], changed[..., width:])

    def _log_probs(self, module: nn.Module, batch: dict[str, Any]) -> Tensor:
        policy, actions = policy_of(module, batch), batch[Columns.ACTIONS]
        # Several coalitions at a time come as so many times the rows.
        times = len(policy.inputs) // len(actions)
        log_prob = policy.log_prob(actions.repeat(times, *[1] * (actions.dim() - 1)))
        return _valid_rows(log_prob.reshape(-1, 1), _valid(batch))


def no_divergence(reference: Tensor, changed: Tensor) -> Tensor:
    """Stand for a divergence that is known once the policy's outputs are."""
    raise AssertionError("outputs come first")


@contextmanager
def generator_kept(seed: int, module: nn.Module) -> Iterator[None]:
    """Seed torch's generator for a while, and give it back as it was."""
    devices = {p.device for p in module.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(devices=[device.index or 0 for device in devices]):
        torch.manual_seed(seed)
        yield


def _rows_in(batches: Sequence[dict[str, Any]] | deque[dict[str, Any]]) -> int:
    return sum(_row_count(batch) for batch in batches)


def _row_count(batch: dict[str, Any]) -> int:
    """Count a minibatch's observations: time steps that are no padding."""
    valid = _valid(batch)
    if valid is not None:
        return int(valid.sum())
    # Rewards have one entry a step, whatever observations and actions look like.
    return int(batch[Columns.REWARDS].numel()) if Columns.REWARDS in batch else sample_count(batch)


def _valid(batch: dict[str, Any]) -> Tensor | None:
    mask = batch.get(Columns.LOSS_MASK)
    return None if mask is None else mask.flatten().bool()


def _valid_rows(rows: Tensor, valid: Tensor | None) -> Tensor:
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
