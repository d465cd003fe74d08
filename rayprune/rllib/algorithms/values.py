"""What an RLModule's value outputs are, and what they should have been."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import torch
from ray.rllib.algorithms.dqn.default_dqn_rl_module import QF_PREDS, DefaultDQNRLModule
from ray.rllib.algorithms.sac.default_sac_rl_module import DefaultSACRLModule
from ray.rllib.algorithms.sac.sac_learner import (
    ACTION_LOG_PROBS_NEXT,
    ACTION_PROBS_NEXT,
    QF_TARGET_NEXT,
    QF_TWIN_PREDS,
)
from ray.rllib.algorithms.sac.torch.default_sac_torch_rl_module import DefaultSACTorchRLModule
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis import ValueFunctionAPI
from ray.rllib.evaluation.postprocessing import Postprocessing
from torch import Tensor

# Below it, targets count as constant: an error can't be told as a share of their variance.
TINY_VARIANCE = 1e-8


@dataclass(frozen=True, slots=True)
class Values:
    """Value outputs in one minibatch, with their targets."""

    outputs: list[Tensor]
    """One for each value net; each ``(rows,)``, or ``(rows, time)``."""
    targets: Tensor
    """Detached, likewise."""

    def error(self, valid: Tensor | None) -> Tensor:
        """Return half the mean squared error, as a share of the targets' variance; a scalar."""
        targets = _rows(self.targets, valid)
        spread = targets.var(unbiased=False).clamp(min=TINY_VARIANCE)
        errors = [(_rows(output, valid) - targets).square().mean() for output in self.outputs]
        return 0.5 * torch.stack(errors).sum() / spread


def has_values(module: Any) -> bool:
    """Return whether a module has a value output or Q-values."""
    return isinstance(module, (ValueFunctionAPI, DefaultDQNRLModule, DefaultSACRLModule))


def values_of(
    module: Any, batch: dict[str, Any], config: Any, alpha: float, embeddings: Any = None
) -> Values:
    """Return a module's values and their targets, as its algorithm bootstraps them.

    PPO's targets are its own (GAE); of APPO and IMPALA, whose targets lie within their loss, they
    are rewards plus the next value. DQN and SAC have theirs from the target nets.

    Args:
        module: one that `has_values`.
        batch: a minibatch as a Learner has it.
        config: the algorithm's.
        alpha: SAC's temperature.
        embeddings: what the policy's forward pass left for the value head.
    """
    if isinstance(module, DefaultDQNRLModule):
        return _dqn_values(module, batch, config)
    if isinstance(module, DefaultSACTorchRLModule):
        return _sac_values(module, batch, config, alpha)
    values = module.compute_values(batch, embeddings=embeddings)
    if Postprocessing.VALUE_TARGETS in batch:
        return Values([values], batch[Postprocessing.VALUE_TARGETS].view_as(values))
    following = torch.cat([values.flatten()[1:], values.flatten()[-1:]]).view_as(values).detach()
    return Values([values], _bootstrapped(batch, following, config.gamma))


def value_outputs(module: Any, batch: dict[str, Any]) -> Tensor:
    """Return the values alone, ``(rows, nets)``: what coalitions of value units are compared in."""
    if isinstance(module, DefaultDQNRLModule):
        observed = {k: batch[k] for k in (Columns.OBS, Columns.STATE_IN) if k in batch}
        outputs = [_chosen(module.compute_q_values(observed)[QF_PREDS], batch)]
    elif isinstance(module, DefaultSACTorchRLModule):
        outputs = _sac_values(module, batch, None, 0.0).outputs
    else:
        outputs = [module.compute_values(batch)]
    return torch.stack([output.flatten() for output in outputs], dim=-1)


def _dqn_values(module: Any, batch: dict[str, Any], config: Any) -> Values:
    observed = {k: batch[k] for k in (Columns.OBS, Columns.STATE_IN) if k in batch}
    q = module.compute_q_values(observed)[QF_PREDS]
    next_batch = {Columns.OBS: batch[Columns.NEXT_OBS]}
    if Columns.NEXT_STATE_IN in batch:
        next_batch[Columns.STATE_IN] = batch[Columns.NEXT_STATE_IN]
    with torch.no_grad():
        judged = module.forward_target(next_batch)[QF_PREDS]
        chooser = module.compute_q_values(next_batch)[QF_PREDS] if config.double_q else judged
        following = judged.gather(-1, chooser.argmax(-1, keepdim=True)).squeeze(-1)
        return Values([_chosen(q, batch)], _bootstrapped(batch, following, config.gamma))


def _sac_values(module: Any, batch: dict[str, Any], config: Any, alpha: float) -> Values:
    # Past CQL's own forward, which asks for many more actions than the values need.
    out = DefaultSACTorchRLModule._forward_train(module, batch)
    outputs = [out[key] for key in (QF_PREDS, QF_TWIN_PREDS) if key in out]
    if isinstance(module.action_space, gym.spaces.Discrete):
        outputs = [_chosen(q, batch) for q in outputs]
        soft = out[QF_TARGET_NEXT] - alpha * out[ACTION_LOG_PROBS_NEXT]
        following = (out[ACTION_PROBS_NEXT] * soft).sum(dim=-1)
    else:
        following = out["q_target_next"] - alpha * out["logp_next_resampled"]
    gamma = 0.0 if config is None else config.gamma
    return Values(outputs, _bootstrapped(batch, following.view_as(outputs[0]), gamma))


def _bootstrapped(batch: dict[str, Any], following: Tensor, gamma: float) -> Tensor:
    """Return rewards plus the discounted value of what follows."""
    goes_on = 1.0 - batch[Columns.TERMINATEDS].to(following.dtype).view_as(following)
    n_step = batch.get("n_step")
    discount: Any = gamma if n_step is None else gamma ** n_step.view_as(following)
    rewards = batch[Columns.REWARDS].to(following.dtype).view_as(following)
    targets: Tensor = rewards + discount * goes_on * following
    return targets.detach()


def _chosen(q: Any, batch: dict[str, Any]) -> Tensor:
    actions = batch[Columns.ACTIONS].long()
    chosen: Tensor = q.gather(-1, actions.view(*q.shape[:-1], 1)).squeeze(-1)
    return chosen


def _rows(values: Tensor, valid: Tensor | None) -> Tensor:
    return values.flatten() if valid is None else values.flatten()[valid]
