"""``rayprune evaluate``: a summary's returns again, from a checkpoint alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rayprune.rllib.evaluation.comparison import dense_policy, measure_closeness
from rayprune.rllib.evaluation.open_policy import OpenPolicy
from rayprune.storage.copies import shown


def evaluate_checkpoint(
    checkpoint: Path,
    *,
    episodes: int | None,
    seed: int | None,
    address: str | None,
    dense: Path | None = None,
) -> dict[str, Any]:
    """Reproduce a summary's returns from a checkpoint alone, or measure on other seeds.

    Args:
        checkpoint: rayprune's, plain RLlib's, or a finished run's directory.
        episodes: how many; None for as many as its experiment says.
        seed: first seed; None measures on the experiment's validation and test seeds.
        address: not needed, for evaluation runs in this process.
        dense: a checkpoint to compare with: its returns on the same seeds, and ``closeness`` on
            its states (the validation seeds', or those from ``seed`` on).

    Raises:
        CheckpointError: nothing there is a checkpoint.
    """
    with OpenPolicy.at(checkpoint) as policy:
        evaluation = policy.evaluation
        number = episodes or evaluation.episodes
        seeds = (
            {"validation": evaluation.validation_seed, "test": evaluation.test_seed}
            if seed is None
            else {"seeds": seed}
        )
        evaluate = policy.evaluator.evaluate
        measured = {
            "checkpoint": shown(policy.saved.directory),
            "env": str(policy.config.env),
            "policy_parameters": policy.parameters(),
            "sensors": policy.sensors(),
            "returns": {name: evaluate(first, number) for name, first in seeds.items()},
        }
        if dense is not None:
            _compare(policy, dense, seeds, number, measured)
    return measured


def _compare(
    policy: OpenPolicy,
    dense: Path,
    seeds: Mapping[str, int],
    episodes: int,
    measured: dict[str, Any],
) -> None:
    """Add a dense policy's returns, and how close the other stays to it."""
    with dense_policy(dense, policy.config) as reference:
        for name, first in seeds.items():
            measured["returns"][f"dense_{name}"] = reference.measure(first, episodes)
        first = next(iter(seeds.values()))
        measured["closeness"] = measure_closeness(policy, reference, first, episodes)
