"""PPO's gradients alone, for minibatches whose figures nobody will read.

RLlib's own loss computes half a dozen figures beside it. Here are the operations that the gradient
goes through, in the same order: where gradients of several terms meet, autograd adds them up in
that order, and floats tell the difference. The loss itself may differ in its last digit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from ray.rllib.core.columns import Columns
from ray.rllib.evaluation.postprocessing import Postprocessing
from torch import Tensor

Mean = Callable[[Tensor], Tensor]


def ppo_loss(
    learner: Any, module_id: str, config: Any, batch: Mapping[str, Any], fwd_out: Mapping[str, Any]
) -> Tensor:
    """Return what has the gradient of the loss of Schulman et al. 2017 (arXiv:1707.06347).

    Args:
        learner: a PPOTorchLearner.
        module_id: of the module that made `fwd_out`.
        config: the module's.
        batch: the module's minibatch.
        fwd_out: what the module's forward made of it.
    """
    module = learner.module[module_id].unwrapped()
    mean = _mean_of(batch)
    policy = module.get_train_action_dist_cls().from_logits(fwd_out[Columns.ACTION_DIST_INPUTS])
    sampled_by = module.get_exploration_action_dist_cls()
    ratio = torch.exp(policy.logp(batch[Columns.ACTIONS]) - batch[Columns.ACTION_LOGP])
    kl = None
    if config.use_kl_loss:
        kl = mean(sampled_by.from_logits(batch[Columns.ACTION_DIST_INPUTS]).kl(policy))
    weight = learner.entropy_coeff_schedulers_per_module[module_id].get_current_value()
    # Without weight its gradients are zeros. One that follows a schedule is a tensor.
    weighs = isinstance(weight, Tensor) or weight != 0.0
    entropy = weight * policy.entropy() if weighs else None
    terms = -_surrogate(ratio, batch[Postprocessing.ADVANTAGES], config.clip_param)
    terms = terms + config.vf_loss_coeff * _value_loss(module, config, batch, fwd_out, ratio)
    total = mean(terms if entropy is None else terms - entropy)
    if kl is not None:
        total += learner.curr_kl_coeffs_per_module[module_id] * kl
    return total


def _surrogate(ratio: Tensor, advantages: Tensor, clip: float) -> Tensor:
    return torch.min(advantages * ratio, advantages * torch.clamp(ratio, 1 - clip, 1 + clip))


def _value_loss(
    module: Any, config: Any, batch: Mapping[str, Any], fwd_out: Mapping[str, Any], like: Tensor
) -> Tensor:
    if not config.use_critic:
        return torch.tensor(0.0, device=like.device)
    values = module.compute_values(batch, embeddings=fwd_out.get(Columns.EMBEDDINGS))
    squared = torch.pow(values - batch[Postprocessing.VALUE_TARGETS], 2.0)
    return torch.clamp(squared, 0, config.vf_clip_param)


def _mean_of(batch: Mapping[str, Any]) -> Mean:
    """Return what has the gradient of a mean over the rows that count.

    RLlib picks those rows out, and autograd puts zeros in the others' places: where each row is
    looked at alone there is no need to count them first.
    """
    if Columns.LOSS_MASK not in batch:
        return torch.mean
    mask = batch[Columns.LOSS_MASK]
    count = torch.sum(mask)
    return lambda values: torch.sum(torch.where(mask, values, 0.0)) / count
