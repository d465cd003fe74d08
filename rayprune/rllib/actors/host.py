"""Remedies that act on the algorithm: multi-step targets, a replay buffer of recent steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from rayprune.pruning.config import DEFAULT_HORIZON
from rayprune.pruning.remedies import REPLAY_KEYS
from rayprune.pruning.schedules.times import in_steps
from rayprune.rllib.settings.keys import CONFIG_KEY


def replay_faults(
    config: AlgorithmConfig, remedies: Mapping[str, Any], *, replays: bool
) -> list[str]:
    """Return the faults of remedies that an algorithm can't be given.

    Args:
        config: the algorithm's.
        remedies: sound in themselves.
        replays: whether it has a replay buffer that fills while training.
    """
    asked = [key for key in REPLAY_KEYS if remedies.get(key) is not None]
    if not asked or replays:
        return []
    name = type(config).__name__.removesuffix("Config")
    return [
        f"`pruning.remedies.{key}` needs a replay buffer that fills while training, which {name} "
        "does not have. Leave it out, or take DQN or SAC."
        for key in asked
    ]


def prepare(config: Any, remedies: Mapping[str, Any]) -> None:
    """Make a config ready for targets whose number of steps changes in mid-run, in place."""
    if remedies.get("n_step") is not None and config.rollout_fragment_length == "auto":
        # By itself it follows `n_step`: more steps would be sampled for each update.
        config.env_runners(rollout_fragment_length=config.get_rollout_fragment_length())


def apply_to_targets(algorithm: Algorithm, env_steps: int) -> None:
    """Set how many steps the targets span from now on.

    Args:
        algorithm: between two iterations.
        env_steps: lifetime env steps.
    """
    pruning, remedies = _config_of(algorithm)
    steps = remedies.get("n_step")
    if steps is None:
        return
    start = in_steps(remedies.get("n_step_from", 0), pruning.get("horizon") or DEFAULT_HORIZON)
    if env_steps >= start:
        # Read at each draw from the buffer, which sums the rewards; a frozen config refuses it
        # otherwise. The loss takes the steps from the batch.
        vars(algorithm.config)["n_step"] = int(steps)


def apply_to_buffer(algorithm: Algorithm, sparsity: float, churn: float) -> None:
    """Set how many env steps the replay buffer may hold until the next iteration.

    It drops its oldest episodes as soon as new steps come, before anything is drawn.

    Args:
        algorithm: between two iterations.
        sparsity: of the policy now.
        churn: fraction of the weights whose mask changed in the last iteration.
    """
    _, remedies = _config_of(algorithm)
    limit, reset = remedies.get("replay_limit"), remedies.get("replay_reset")
    if limit is None and reset is None:
        return
    config: Any = algorithm.config
    bounds = [int(config.replay_buffer_config["capacity"])]
    if limit is not None and sparsity > 0:
        bounds.append(int(limit))
    if reset is not None and churn > 0:
        bounds.append(int(reset))
    buffer: Any = algorithm.local_replay_buffer
    buffer.capacity = min(bounds)


def _config_of(algorithm: Algorithm) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the plain pruning dict as it is now, and the remedies in it."""
    config: Any = algorithm.config
    pruning = config.learner_config_dict.get(CONFIG_KEY, {})
    return pruning, pruning.get("remedies") or {}
