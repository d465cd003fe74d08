"""Starts a run from a trained policy: weights, observation filters, and masks where it has them."""

from __future__ import annotations

import pickle
from pathlib import Path

import ray
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core import COMPONENT_LEARNER, COMPONENT_LEARNER_GROUP, COMPONENT_RL_MODULE

from rayprune.rllib.checkpoints import check_fits, locate
from rayprune.rllib.learner import STATE_KEY
from rayprune.rllib.learners import foreach_learner
from rayprune.rllib.rows import policy_of


def start_from(algorithm: Algorithm, checkpoint: Path) -> None:
    """Put a checkpoint's policy into a freshly built algorithm, with optimizers of its own.

    Args:
        algorithm: built, not yet trained.
        checkpoint: rayprune's, plain RLlib's, or a finished run's directory.

    Raises:
        CheckpointError: it is no checkpoint, or of another network.
    """
    directory = locate(checkpoint)
    check_fits(directory, algorithm.get_module())
    component = f"{COMPONENT_LEARNER_GROUP}/{COMPONENT_LEARNER}/{COMPONENT_RL_MODULE}"
    algorithm.restore_from_path(str((directory / component).absolute()), component=component)
    runner = directory / "env_runner"
    if runner.is_dir() and algorithm.env_runner is not None:
        algorithm.restore_from_path(str(runner.absolute()), component="env_runner")
    masks = masks_of(directory)
    foreach_learner(algorithm, lambda learner: learner.adopt_masks(masks))
    if algorithm.env_runner_group is not None:
        # RLlib's own sync after a restore doesn't wait, and drops the request of a busy EnvRunner:
        # its first samples would come from an untrained policy.
        state = ray.put(policy_of(algorithm))
        algorithm.env_runner_group.foreach_env_runner(
            lambda runner: runner.set_state(ray.get(state))  # type: ignore[attr-defined]
        )


def masks_of(directory: Path) -> dict[str, object]:
    """Return a pruned checkpoint's masks by module id, nothing for a plain one."""
    path = directory / COMPONENT_LEARNER_GROUP / COMPONENT_LEARNER / "state.pkl"
    with path.open("rb") as file:
        state = pickle.load(file)
    held = state.get(STATE_KEY)
    return {} if held is None else dict(held["modules"])
