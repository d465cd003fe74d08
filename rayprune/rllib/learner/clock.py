"""The clock of a Learner's mask updates: env steps, or updates where no steps are sampled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME

from rayprune.rllib.learner import ranks


def clock_of(learner: TorchLearner, timesteps: Mapping[str, Any], updates: int) -> int:
    """Return the moment of an update, the same on every Learner of a group.

    A batch that reached one Learner of IMPALA and not the other, whose queue was full, would
    otherwise leave their clocks, and so their masks, apart for good: the latest of all counts.

    Args:
        learner: whose update has just been done.
        timesteps: what RLlib passes to it. BC's says how many rows were read, CQL's nothing.
        updates: optimizer steps so far, the clock of offline algorithms.
    """
    if learner.config.is_offline:
        return updates
    return ranks.latest(int(timesteps.get(NUM_ENV_STEPS_SAMPLED_LIFETIME) or updates), learner)
