"""DQN: Q-values with target networks, from a replay buffer; its policy is their softmax."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import gymnasium as gym
import torch
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.dqn.default_dqn_rl_module import QF_PREDS, DefaultDQNRLModule
from ray.rllib.algorithms.dqn.dqn_catalog import DQNCatalog
from ray.rllib.core.columns import Columns
from ray.rllib.core.distribution.torch.torch_distribution import TorchCategorical
from torch import Tensor

from rayprune.pruning.evidence.divergences import categorical_kl
from rayprune.rllib.algorithms.family import SET_MODEL, AlgorithmFamily, Unread, value_at
from rayprune.rllib.algorithms.policy import Policy, observed
from rayprune.rllib.algorithms.values import Values, bootstrapped, of_actions
from rayprune.rllib.modules.linear_catalogs import Linear

KEEPS_BUFFER = Unread(
    "training",
    ("store_buffer_in_checkpoints",),
    "rayprune's checkpoints always hold the buffer; leave it out.",
)


class LinearDQNCatalog(Linear, DQNCatalog):
    """DQN's catalog, which needs no hidden layer."""


class DQNFamily(AlgorithmFamily):
    """Deep Q-learning, Mnih et al. 2015, with RLlib's double, dueling and distributional forms."""

    config_class = DQNConfig
    module_class = DefaultDQNRLModule
    linear_catalog = LinearDQNCatalog
    actions: ClassVar[tuple[type, ...] | None] = (gym.spaces.Discrete,)
    replays = True
    acts_by_values = True
    competes = True
    one_update = True
    no_lstm = "RLlib's prioritised buffer holds no sequences"
    moment_attributes: ClassVar[tuple[str, ...]] = ("last_update_ts_by_mid",)
    value_net = False
    learns_deviation = False
    initialises_heads = True
    unread: ClassVar[tuple[Unread, ...]] = (
        Unread(
            "training",
            ("noisy", "sigma0"),
            "DQN's noisy layers are of the old stack; set `epsilon`, a schedule of exploration.",
        ),
        Unread("training", ("hiddens",), SET_MODEL),
        Unread("training", ("adam_epsilon",), "Set `lr` and `grad_clip`."),
        Unread(
            "training",
            ("categorical_distribution_temperature",),
            "Set `epsilon`, a schedule of exploration.",
        ),
        Unread("training", ("before_learn_on_batch",), "Give a learner connector."),
        KEEPS_BUFFER,
    )

    def faults(self, blocks: Mapping[str, Any]) -> Iterator[str]:
        """Yield what it can't do: a recurrent net needs the uniform buffer, and no distribution."""
        if not self.is_recurrent(blocks):
            return
        if value_at(blocks, "training", "replay_buffer_config", "type") != "EpisodeReplayBuffer":
            yield self._lstm_fault(
                "Set `rllib.training.replay_buffer_config: {type: EpisodeReplayBuffer}`, which is "
                "uniform, or leave it out."
            )
        if (value_at(blocks, "training", "num_atoms") or 1) > 1:
            yield (
                "`rllib.training.num_atoms` must be 1 with `use_lstm`: RLlib's distributional DQN "
                "fails with recurrent nets. Leave one of the two out."
            )

    def policy(self, module: Any, batch: dict[str, Any]) -> Policy:
        """Return the softmax over its Q-values."""
        inputs: Any = module.compute_q_values(observed(batch))[QF_PREDS]
        return Policy(inputs, TorchCategorical(logits=inputs))

    def critic_loss(self, learner: Any, module_id: str, loss: Tensor) -> Tensor | None:
        """Return the loss, which is that of the Q-values."""
        del learner, module_id
        return loss

    def has_values(self, module: Any) -> bool:
        """It always has."""
        del module
        return True

    def values(
        self,
        module: Any,
        batch: dict[str, Any],
        config: Any,
        temperature: float,
        embeddings: Any = None,
    ) -> Values:
        """Return Q of the actions taken, and targets from the target networks."""
        del temperature, embeddings
        q = module.compute_q_values(observed(batch))[QF_PREDS]
        next_batch = {Columns.OBS: batch[Columns.NEXT_OBS]}
        if Columns.NEXT_STATE_IN in batch:
            next_batch[Columns.STATE_IN] = batch[Columns.NEXT_STATE_IN]
        with torch.no_grad():
            judged = module.forward_target(next_batch)[QF_PREDS]
            chooser = module.compute_q_values(next_batch)[QF_PREDS] if config.double_q else judged
            following = judged.gather(-1, chooser.argmax(-1, keepdim=True)).squeeze(-1)
            return Values([of_actions(q, batch)], bootstrapped(batch, following, config.gamma))

    def value_outputs(self, module: Any, batch: dict[str, Any]) -> list[Tensor]:
        """Return Q of the actions taken."""
        return [of_actions(module.compute_q_values(observed(batch))[QF_PREDS], batch)]

    def all_forwards(self, module: Any, batch: dict[str, Any]) -> list[Any]:
        """Return all Q-values, and those of the target networks."""
        return [module.compute_q_values(batch), module.forward_target(batch)]

    def teacher_kl(
        self,
        student: Any,
        teacher: Any,
        outputs: Mapping[str, Any],
        batch: dict[str, Any],
        temperature: float,
    ) -> Tensor | None:
        """Return the KL between softmaxes of Q-values, each divided by the temperature."""
        found = super().teacher_kl(student, teacher, outputs, batch, temperature)
        if found is not None or QF_PREDS not in outputs:
            return found
        with torch.no_grad():
            target = teacher.compute_q_values(batch)[QF_PREDS]
        return categorical_kl(target / temperature, outputs[QF_PREDS] / temperature)
