"""What an exported file says of its source: the checkpoint, and what its inputs mean."""

from __future__ import annotations

from typing import Any

from ray.rllib.env import INPUT_ENV_SINGLE_SPACES

from rayprune.policies.identity import facts_of, portable
from rayprune.rllib.evaluation.open_policy import OpenPolicy


def source_of(policy: OpenPolicy, *, sample: bool) -> dict[str, Any]:
    """Return what a file says of the policy that it was made of; JSON only.

    Args:
        policy: a checkpoint's.
        sample: whether the file draws its actions.
    """
    saved, config = policy.saved, policy.config
    return {
        "checkpoint": portable(saved.directory),
        "weights_sha256": saved.sha256(),
        "compacted_in_training": bool(saved.origins),
        "algorithm": type(config).__name__.removesuffix("Config"),
        **facts_of(
            policy.evaluator.spaces[INPUT_ENV_SINGLE_SPACES],
            str(config.env),
            config.env_config,
            sample=sample,
        ),
    }
