"""IQL: Q-values of recorded actions by expectile regression, and a policy weighed by them."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium as gym
from ray.rllib.algorithms.iql import IQLConfig
from ray.rllib.algorithms.iql.default_iql_rl_module import DefaultIQLRLModule
from ray.rllib.core.columns import Columns
from torch import Tensor

from rayprune.rllib.algorithms.family import Unread
from rayprune.rllib.algorithms.sac import SACFamily
from rayprune.rllib.algorithms.values import Values, bootstrapped


class IQLFamily(SACFamily):
    """Implicit Q-learning, Kostrikov et al. 2021 (arXiv:2110.06169).

    Its networks are SAC's with a value net beside them, its loop MARWIL's.
    """

    config_class = IQLConfig
    module_class = DefaultIQLRLModule
    actions: ClassVar[tuple[type, ...] | None] = (gym.spaces.Box,)
    replays = False
    no_lstm = "RLlib's IQL, like its SAC, fails with recurrent nets"
    learned_attributes: ClassVar[tuple[str, ...]] = ()
    unread: ClassVar[tuple[Unread, ...]] = (
        Unread(
            "training",
            (
                "bc_logstd_coeff",
                "burnin_len",
                "moving_average_sqd_adv_norm_start",
                "moving_average_sqd_adv_norm_update_rate",
                "vf_coeff",
            ),
            "It is MARWIL's; set `beta` and `expectile`.",
        ),
        Unread("training", ("lr",), "Set `actor_lr`, `critic_lr` and `value_lr`."),
    )

    def temperature(self, learner: Any, module_id: str) -> float:
        """Return 0.0: its targets have no entropy, and its `temperature` weighs advantages."""
        del learner, module_id
        return 0.0

    def values(
        self,
        module: Any,
        batch: dict[str, Any],
        config: Any,
        temperature: float,
        embeddings: Any = None,
    ) -> Values:
        """Return Q of the actions taken and the states' values, and rewards plus the next value."""
        del temperature, embeddings
        following = module.compute_values({Columns.OBS: batch[Columns.NEXT_OBS]})
        return Values(
            self.value_outputs(module, batch), bootstrapped(batch, following, config.gamma)
        )

    def value_outputs(self, module: Any, batch: dict[str, Any]) -> list[Tensor]:
        """Return Q of the actions taken by each critic, and the states' values."""
        return [*super().value_outputs(module, batch), module.compute_values(batch)]

    def all_forwards(self, module: Any, batch: dict[str, Any]) -> list[Any]:
        """Return what policy, critics, target networks and the value net put out."""
        return [*super().all_forwards(module, batch), module.compute_values(batch)]
