"""Starts a run from a trained policy: weights, observation filters, and masks where it has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core import DEFAULT_MODULE_ID

from rayprune.errors import InputError
from rayprune.pruning.layers.partial_norm import CONSTANTS
from rayprune.pruning.masks.state import unpack_state
from rayprune.rllib.actors.learners import foreach_learner, policy_of
from rayprune.rllib.checkpoints.files import fetch, module_of
from rayprune.rllib.checkpoints.saved_policy import SavedPolicy
from rayprune.rllib.connectors.filter_state import freeze, take_statistics


@dataclass(frozen=True)
class TransferredWeights:
    """What a run took over from a trained policy, by parameter name."""

    kept: list[str]
    new: list[str]
    """Parameters of this run's network that the policy had none for, of their shape."""


def start_from(
    algorithm: Algorithm, checkpoint: Path, *, partly: bool = False, masks: bool = True
) -> TransferredWeights:
    """Put a checkpoint's policy into a freshly built algorithm, with optimizers of its own.

    Args:
        algorithm: built, not yet trained.
        checkpoint: rayprune's, plain RLlib's, a finished run's directory, or an RLModule's own
            checkpoint. It may hold what ``torch.nn.utils.prune`` pruned.
        partly: take what fits, and leave the rest of the network as it is (transfer).
        masks: take its masks; without them its zeros train like all other weights.

    Raises:
        CheckpointError: it is no checkpoint, or, unless ``partly``, of another network.
    """
    directory = fetch(checkpoint, module_will_do=True)
    saved = SavedPolicy(directory)
    if not partly:
        saved.check_fits(module_of(algorithm))
    weights, held = _policy(saved)
    source = ray.put((weights, held if masks else {}))
    taught = take_statistics(algorithm, directory, partly=partly)
    taken: TransferredWeights
    taken, *_ = foreach_learner(algorithm, lambda learner: _take(learner, source))
    runner = directory / "env_runner"
    # A filter of other observations fits no more than the layer that follows it.
    if runner.is_dir() and algorithm.env_runner is not None and not taken.new:
        algorithm.restore_from_path(str(runner.absolute()), component="env_runner")
    if taught:
        freeze(algorithm)
    _sync_env_runners(algorithm)
    return taken


def _sync_env_runners(algorithm: Algorithm) -> None:
    """Give EnvRunners the policy, and wait until they have it.

    RLlib's own sync after a restore doesn't wait, and drops the request of a busy EnvRunner: its
    first samples would come from an untrained policy.
    """
    if algorithm.env_runner_group is not None:
        state = ray.put(policy_of(algorithm))
        algorithm.env_runner_group.foreach_env_runner(
            lambda runner: runner.set_state(ray.get(state))  # type: ignore[attr-defined]
        )


def _take(learner: Any, source: Any) -> TransferredWeights:
    """Give a Learner's module the weights and masks that fit it."""
    weights, masks = ray.get(source)
    module = learner.module[DEFAULT_MODULE_ID].unwrapped()
    shapes = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    kept = [name for name in shapes if name in weights and weights[name].shape == shapes[name]]
    # In place, so that optimizers and DDP keep their parameters.
    module.load_state_dict(
        {name: torch.from_numpy(np.array(weights[name])) for name in kept}, strict=False
    )
    fitting = {name: mask for name, mask in masks.items() if name in set(kept)}
    learner.adopt_masks({DEFAULT_MODULE_ID: fitting})
    return TransferredWeights(kept=kept, new=[name for name in shapes if name not in set(kept)])


def _policy(
    saved: SavedPolicy,
) -> tuple[dict[str, np.ndarray[Any, Any]], dict[str, torch.Tensor]]:
    """Return a policy's plain weights and its masks by parameter name; a plain one has none."""
    _refuse_constants(saved.weights)
    # A policy that shrank while it was trained comes in its original shape, with masks where units
    # have gone: only so can it meet networks of any shape, and shrink again if this run wants it.
    whole = saved.origins.inflate(
        {name: torch.from_numpy(np.array(value)) for name, value in saved.weights.items()}
    )
    return {name: value.numpy() for name, value in whole.items()}, {
        **saved.torch_masks,
        **_masks(saved),
    }


def _refuse_constants(weights: Mapping[str, Any]) -> None:
    """Refuse a policy whose norms count constants in that no weight would bring back.

    Raises:
        InputError: it has such a norm.
    """
    for name, value in weights.items():
        norm, _, last = name.rpartition(".")
        if last == CONSTANTS and np.any(np.asarray(value)[1:]):
            raise InputError(
                f"`start_from` has a policy that shrank while it was trained, and whose {norm!r} "
                "takes the mean over constants too that went with their units: in its original "
                "shape it would compute something else. Start from a run that left "
                "`pruning.compact_every` out."
            )


def _masks(saved: SavedPolicy) -> dict[str, torch.Tensor]:
    """Return the masks that a rayprune Learner saved, by parameter name."""
    if saved.pruner is None:
        return {}
    shapes = {name: tuple(shape) for name, shape in saved.pruner["shapes"].items()}
    return saved.origins.inflate_masks(unpack_state(saved.pruner, shapes)[0], shapes)
