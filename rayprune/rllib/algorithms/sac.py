"""SAC: a policy beside one or two critics with target networks, from a replay buffer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import gymnasium as gym
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.algorithms.sac.default_sac_rl_module import DefaultSACRLModule
from ray.rllib.algorithms.sac.sac_catalog import SACCatalog
from ray.rllib.algorithms.sac.sac_learner import (
    ACTION_LOG_PROBS,
    ACTION_LOG_PROBS_NEXT,
    ACTION_PROBS_NEXT,
    QF_LOSS_KEY,
    QF_PREDS,
    QF_TARGET_NEXT,
    QF_TWIN_LOSS_KEY,
    QF_TWIN_PREDS,
)
from ray.rllib.algorithms.sac.torch.default_sac_torch_rl_module import DefaultSACTorchRLModule
from ray.rllib.core.models.catalog import Catalog
from torch import Tensor

from rayprune.pruning.evidence.divergences import categorical_kl
from rayprune.rllib.algorithms.dqn import KEEPS_BUFFER
from rayprune.rllib.algorithms.family import (
    LEAVE_OUT,
    SET_MODEL,
    AlgorithmFamily,
    Unread,
    distribution_inputs,
)
from rayprune.rllib.algorithms.policy import Policy, observed, policy_from
from rayprune.rllib.algorithms.values import Values, bootstrapped, of_actions
from rayprune.rllib.modules.linear_catalogs import Linear


class LinearSACCatalog(Linear, SACCatalog):
    """SAC's and CQL's catalog, which needs no hidden layer."""


class SACFamily(AlgorithmFamily):
    """Soft actor-critic, Haarnoja et al. 2018 (arXiv:1812.05905)."""

    config_class: ClassVar[type[AlgorithmConfig] | None] = SACConfig
    module_class: ClassVar[type | None] = DefaultSACRLModule
    linear_catalog: ClassVar[type[Catalog] | None] = LinearSACCatalog
    actions: ClassVar[tuple[type, ...] | None] = (gym.spaces.Box, gym.spaces.Discrete)
    squashes = True
    replays = True
    competes = True
    one_update = True
    no_lstm = "RLlib's SAC fails with recurrent nets"
    # The logarithm of its temperature: 3.3 came back as 0.0.
    learned_attributes: ClassVar[tuple[str, ...]] = ("curr_log_alpha",)
    moment_attributes: ClassVar[tuple[str, ...]] = ("last_update_ts_by_mid",)
    value_net = False
    fuses_actions = True
    learns_deviation = False
    unread: ClassVar[tuple[Unread, ...]] = (
        Unread("training", ("policy_model_config", "q_model_config"), SET_MODEL),
        KEEPS_BUFFER,
        Unread("training", ("optimization_config",), "Set `actor_lr`, `critic_lr` and `alpha_lr`."),
        Unread("training", ("_deterministic_loss", "_use_beta_distribution"), LEAVE_OUT),
    )

    def policy(self, module: Any, batch: dict[str, Any]) -> Policy:
        """Return the policy, without running the critics."""
        return policy_from(module, module._forward_inference(observed(batch)))

    def critic_loss(self, learner: Any, module_id: str, loss: Tensor) -> Tensor | None:
        """Return the critics' part of the loss, which RLlib keeps for their optimizers."""
        del loss
        held: dict[tuple[str, str], Tensor] = learner._temp_losses
        found = [held.get((module_id, key)) for key in (QF_LOSS_KEY, QF_TWIN_LOSS_KEY)]
        losses = [part for part in found if part is not None]
        return losses[0] if len(losses) == 1 else losses[0] + losses[1]

    def has_values(self, module: Any) -> bool:
        """It always has."""
        del module
        return True

    def temperature(self, learner: Any, module_id: str) -> float:
        """Return the Learner's alpha, which weighs the entropy."""
        held = getattr(learner, "curr_log_alpha", None)
        return 0.0 if held is None else math.exp(float(held[module_id]))

    def values(
        self,
        module: Any,
        batch: dict[str, Any],
        config: Any,
        temperature: float,
        embeddings: Any = None,
    ) -> Values:
        """Return Q of the actions taken, and soft targets from the target networks."""
        del embeddings
        out = _trained(module, batch)
        outputs = _critics(module, out, batch)
        if isinstance(module.action_space, gym.spaces.Discrete):
            soft = out[QF_TARGET_NEXT] - temperature * out[ACTION_LOG_PROBS_NEXT]
            following = (out[ACTION_PROBS_NEXT] * soft).sum(dim=-1)
        else:
            following = out["q_target_next"] - temperature * out["logp_next_resampled"]
        return Values(outputs, bootstrapped(batch, following.view_as(outputs[0]), config.gamma))

    def value_outputs(self, module: Any, batch: dict[str, Any]) -> list[Tensor]:
        """Return Q of the actions taken, by each critic."""
        return _critics(module, _trained(module, batch), batch)

    def all_forwards(self, module: Any, batch: dict[str, Any]) -> list[Any]:
        """Return what policy, critics and target networks put out."""
        policy = module._forward_inference(batch)
        return [policy, module.compute_q_values(batch), module.forward_target(batch)]

    def teacher_kl(
        self,
        student: Any,
        teacher: Any,
        outputs: Mapping[str, Any],
        batch: dict[str, Any],
        temperature: float,
    ) -> Tensor | None:
        """Return the KL of the policies; over discrete actions the module puts out log-probs."""
        found = super().teacher_kl(student, teacher, outputs, batch, temperature)
        if found is None and ACTION_LOG_PROBS in outputs:
            return categorical_kl(distribution_inputs(teacher, batch), outputs[ACTION_LOG_PROBS])
        return found


def _trained(module: Any, batch: dict[str, Any]) -> dict[str, Any]:
    # Past CQL's own forward, which asks for many more actions than the values need.
    out: dict[str, Any] = DefaultSACTorchRLModule._forward_train(module, batch)
    return out


def _critics(module: Any, out: dict[str, Any], batch: dict[str, Any]) -> list[Tensor]:
    outputs = [out[key] for key in (QF_PREDS, QF_TWIN_PREDS) if key in out]
    discrete = isinstance(module.action_space, gym.spaces.Discrete)
    return [of_actions(q, batch) for q in outputs] if discrete else outputs
