"""IMPALA: an actor-critic with V-trace, whose Learners update while EnvRunners sample."""

from __future__ import annotations

from typing import ClassVar

from ray.rllib.algorithms.impala import IMPALAConfig

from rayprune.rllib.algorithms.family import LEAVE_OUT, AlgorithmFamily, Unread
from rayprune.rllib.algorithms.ppo import LinearPPOCatalog

OF_BOTH = (
    Unread(
        "training",
        ("decay", "epsilon", "momentum", "opt_type", "_lr_vf", "_separate_vf_optimizer"),
        "The Learners use Adam, one for all of a network: set `lr`.",
    ),
    Unread(
        "training",
        ("learner_queue_timeout", "replay_buffer_num_slots", "timeout_s_aggregator_manager"),
        LEAVE_OUT,
    ),
)
"""What neither IMPALA nor APPO reads."""


class IMPALAFamily(AlgorithmFamily):
    """Importance-weighted actor-learners, Espeholt et al. 2018 (arXiv:1802.01561)."""

    config_class = IMPALAConfig
    linear_catalog = LinearPPOCatalog
    asynchronous = True
    unread: ClassVar[tuple[Unread, ...]] = (
        *OF_BOTH,
        Unread("training", ("minibatch_buffer_size", "num_multi_gpu_tower_stacks"), LEAVE_OUT),
    )
