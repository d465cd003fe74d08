"""What remedies may set on an algorithm of RLlib, and when they are asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray.rllib.algorithms.algorithm import Algorithm

from rayprune.pruning.config import DEFAULT_HORIZON
from rayprune.pruning.remedies import chosen_remedies
from rayprune.pruning.remedies.base import Moment, TrainingHost
from rayprune.rllib.settings.module_configs import pruning_in


class AlgorithmHost(TrainingHost):
    """What remedies may set on an RLlib algorithm, between two iterations.

    Args:
        algorithm: built.
    """

    def __init__(self, algorithm: Algorithm) -> None:
        self._algorithm: Any = algorithm
        self._capacities: list[int] = []

    def set_target_steps(self, steps: int) -> None:
        """Let value targets span so many steps from now on."""
        # Read at each draw from the buffer, which sums the rewards; a frozen config refuses it
        # otherwise. The loss takes the steps from the batch.
        vars(self._algorithm.config)["n_step"] = steps

    def set_replay_capacity(self, env_steps: int | None) -> None:
        """Bound the replay buffer, which drops its oldest episodes as soon as new steps come."""
        if not self._capacities:
            self._capacities.append(int(self._algorithm.config.replay_buffer_config["capacity"]))
        if env_steps is not None:
            self._capacities.append(env_steps)
        self._algorithm.local_replay_buffer.capacity = min(self._capacities)


def hold_sampling(config: Any, remedies: Mapping[str, Any]) -> None:
    """Keep how much is sampled for each update where a remedy changes the targets, in place."""
    changes = any(remedy.changes_targets for _, remedy in chosen_remedies(remedies))
    if changes and config.rollout_fragment_length == "auto":
        # By itself it follows `n_step`: more steps would be sampled for each update.
        config.env_runners(rollout_fragment_length=config.get_rollout_fragment_length())


def begin_remedies(algorithm: Algorithm, clock: int) -> None:
    """Let the chosen remedies act on an algorithm that was built or restored.

    Args:
        algorithm: before its next iteration.
        clock: lifetime env steps.
    """
    pruning, remedies = _config_of(algorithm)
    host, moment = AlgorithmHost(algorithm), Moment(clock=clock, horizon=_horizon(pruning))
    for _, remedy in chosen_remedies(remedies):
        remedy.before_training(host, moment, remedies)


def ask_remedies(algorithm: Algorithm, clock: int, sparsity: float, churn: float) -> None:
    """Let the chosen remedies act on an algorithm between two iterations.

    Args:
        algorithm: between two iterations.
        clock: lifetime env steps.
        sparsity: of the policy now.
        churn: fraction of the weights whose mask changed in the last iteration.
    """
    pruning, remedies = _config_of(algorithm)
    moment = Moment(clock=clock, horizon=_horizon(pruning), sparsity=sparsity, churn=churn)
    host = AlgorithmHost(algorithm)
    for _, remedy in chosen_remedies(remedies):
        remedy.after_iteration(host, moment, remedies)


def _horizon(pruning: Mapping[str, Any]) -> int:
    return pruning.get("horizon") or DEFAULT_HORIZON


def _config_of(algorithm: Algorithm) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the plain pruning dict as it is now, and the remedies in it."""
    config: Any = algorithm.config
    pruning = pruning_in(config)
    return pruning, pruning.get("remedies") or {}
