"""APPO: PPO's loss on IMPALA's architecture, with target networks."""

from __future__ import annotations

from typing import ClassVar

from ray.rllib.algorithms.appo import APPOConfig

from rayprune.rllib.algorithms.family import Unread
from rayprune.rllib.algorithms.impala import OF_BOTH, IMPALAFamily


class APPOFamily(IMPALAFamily):
    """Asynchronous PPO, Luo et al. 2020 (arXiv:1912.00167)."""

    config_class = APPOConfig
    learned_attributes: ClassVar[tuple[str, ...]] = ("curr_kl_coeffs_per_module",)
    moment_attributes: ClassVar[tuple[str, ...]] = ("_last_update_ts_by_mid",)
    unread: ClassVar[tuple[Unread, ...]] = (
        *OF_BOTH,
        Unread(
            "training",
            ("use_gae", "lambda_"),
            "APPO estimates by V-trace: set `vtrace_clip_rho_threshold`.",
        ),
        Unread(
            "training",
            ("target_worker_clipping",),
            "Set `clip_param` or `vtrace_clip_rho_threshold`.",
        ),
    )
