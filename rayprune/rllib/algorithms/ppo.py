"""PPO: on-policy, its value targets computed with the batch."""

from __future__ import annotations

from typing import ClassVar

from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.ppo.ppo_catalog import PPOCatalog

from rayprune.rllib.algorithms.family import AlgorithmFamily, Unread
from rayprune.rllib.modules.linear_catalogs import Linear


class LinearPPOCatalog(Linear, PPOCatalog):
    """PPO's, APPO's and IMPALA's catalog, which needs no hidden layer."""


class PPOFamily(AlgorithmFamily):
    """Proximal policy optimisation, Schulman et al. 2017 (arXiv:1707.06347)."""

    config_class = PPOConfig
    linear_catalog = LinearPPOCatalog
    # The adaptive coefficient of its KL term.
    learned_attributes: ClassVar[tuple[str, ...]] = ("curr_kl_coeffs_per_module",)
    unread: ClassVar[tuple[Unread, ...]] = (
        Unread("training", ("use_gae",), "PPO always uses it; set `lambda_`."),
    )
