"""``rayprune evaluate``: a summary's returns again, from a checkpoint alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from rayprune.rllib.checkpoints.files import locate, read_evaluation
from rayprune.rllib.evaluation.comparison import dense_policy, measure_closeness
from rayprune.rllib.evaluation.evaluator import Evaluator
from rayprune.rllib.experiment.algorithm_config import config_of
from rayprune.rllib.modules.sensors import sensor_report
from rayprune.rllib.training.summary import measure
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
    directory = locate(checkpoint)
    config, evaluation = config_of(directory), read_evaluation(directory)
    evaluator = Evaluator(config)
    try:
        evaluator.load_checkpoint(directory)
        number = episodes or evaluation.episodes
        seeds = (
            {"validation": evaluation.validation_seed, "test": evaluation.test_seed}
            if seed is None
            else {"seeds": seed}
        )
        returns = {name: evaluator.evaluate(first, number) for name, first in seeds.items()}
        parameters = list(evaluator.module.parameters())
        sensors = sensor_report(evaluator)
    finally:
        evaluator.close()
    compared: dict[str, Any] = {}
    if dense is not None:
        reference = dense_policy(locate(dense), config)
        for name, first in seeds.items():
            returns[f"dense_{name}"] = measure(*reference, first, number)
        first = next(iter(seeds.values()))
        compared["closeness"] = measure_closeness((config, directory), reference, first, number)
    return {
        "checkpoint": shown(directory),
        "env": str(config.env),
        "policy_parameters": {
            "total": sum(p.numel() for p in parameters),
            "nonzero": sum(int(torch.count_nonzero(p)) for p in parameters),
        },
        "sensors": sensors,
        "returns": returns,
        **compared,
    }
