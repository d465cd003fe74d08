"""CQL: SAC on recorded data, with a penalty on the Q-values of actions that aren't in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import gymnasium as gym
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.cql import CQLConfig
from ray.rllib.algorithms.cql.torch.default_cql_torch_rl_module import DefaultCQLTorchRLModule

from rayprune.rllib.algorithms.family import Unread, value_at
from rayprune.rllib.algorithms.sac import SACFamily


class CQLFamily(SACFamily):
    """Conservative Q-learning, Kumar et al. 2020 (arXiv:2006.04779)."""

    config_class = CQLConfig
    module_class = DefaultCQLTorchRLModule
    actions: ClassVar[tuple[type, ...] | None] = (gym.spaces.Box,)
    # It makes a buffer, as SAC does, and never fills it.
    replays = False
    competes = False
    no_lstm = "RLlib's CQL, like its SAC, fails with recurrent nets"
    unread: ClassVar[tuple[Unread, ...]] = (
        *SACFamily.unread,
        Unread(
            "training",
            ("lagrangian", "lagrangian_thresh"),
            "Set `min_q_weight`, which is constant.",
        ),
    )

    def set_defaults(self, config: AlgorithmConfig) -> None:
        """Set what RLlib would otherwise ask for or get wrong."""
        super().set_defaults(config)
        # The learning rates are the actor's, the critic's and alpha's; RLlib's default clashes.
        config.training(lr=None)

    def faults(self, blocks: Mapping[str, Any]) -> Iterator[str]:
        """Yield what it can't do, of what shows before anything is built."""
        yield from super().faults(blocks)
        if value_at(blocks, "training", "target_network_update_freq"):
            # RLlib 2.60 counts env steps here, and an offline algorithm samples none.
            yield (
                "`rllib.training.target_network_update_freq` must be 0 with CQL, or its target "
                "networks would never be updated. Leave it out, and set `tau`."
            )
