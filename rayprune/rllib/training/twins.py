"""Runs beside a run, to compare it with: its dense twin, and its start from nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from rayprune.config import ExperimentConfig
from rayprune.rllib.checkpoints.files import fetch
from rayprune.rllib.cluster.resources import learner_gpus, resolve_gpus
from rayprune.rllib.evaluation.comparison import dense_policy
from rayprune.rllib.experiment.algorithm_config import base_config, build_config
from rayprune.rllib.training.interruption import Interruption
from rayprune.rllib.training.run import CONFIG_FILE, Run
from rayprune.rllib.training.transfer import FRESH_DIRECTORY
from rayprune.storage.copies import shown
from rayprune.tracking.record import prepare_out
from rayprune.tracking.reporter import Reporter

DENSE_DIRECTORY: Final = "dense"


def dense_reference(
    experiment: ExperimentConfig, out: Path, reporter: Reporter, interruption: Interruption
) -> dict[str, Any] | None:
    """Return what the dense policy that `evaluation.dense` names earns; None if it names none.

    Args:
        experiment: its twin is trained in ``out/dense`` where `evaluation.dense` is ``train``.
        out: the run's directory.
        reporter: told of the twin's progress.
        interruption: stops the twin's training.

    Returns:
        Its ``validation`` and ``test`` returns, and its ``checkpoint``.
    """
    dense, seeds = experiment.evaluation.dense, experiment.evaluation
    if dense is None:
        return None
    if dense != "train":
        directory = fetch(dense)
        with dense_policy(directory, base_config(experiment)) as policy:
            return {
                "validation": policy.measure(seeds.validation_seed, seeds.episodes),
                "test": policy.measure(seeds.test_seed, seeds.episodes),
                "checkpoint": shown(directory.absolute()),
            }
    place = out / DENSE_DIRECTORY
    summary = _train(dense_twin(experiment), place, reporter, interruption)
    returns, checkpoint = summary["returns"], place / str(summary["checkpoint"])
    return {
        **{k: returns[k] for k in ("validation", "test")},
        "checkpoint": shown(checkpoint.absolute()),
    }


def dense_twin(experiment: ExperimentConfig) -> ExperimentConfig:
    """Return the experiment that differs in nothing but that it prunes and rounds nothing."""
    return experiment.model_copy(
        update={
            "name": f"{experiment.name}-dense",
            "pruning": experiment.pruning.without_pruning(),
            "quantise": None,
            "evaluation": experiment.evaluation.model_copy(update={"dense": None}),
        }
    )


def fresh_start(experiment: ExperimentConfig) -> ExperimentConfig:
    """Return the experiment that differs in nothing but that it starts from nothing."""
    return experiment.model_copy(
        update={
            "name": f"{experiment.name}-fresh",
            "start_from": None,
            "transfer": None,
            "evaluation": experiment.evaluation.model_copy(update={"dense": None}),
        }
    )


def train_fresh(
    experiment: ExperimentConfig, out: Path, reporter: Reporter, interruption: Interruption
) -> None:
    """Train the fresh start in ``out/fresh``, if `transfer.fresh` asks for it and it isn't done."""
    if experiment.transfer is not None and experiment.transfer.fresh:
        _train(fresh_start(experiment), out / FRESH_DIRECTORY, reporter, interruption)


def _train(
    twin: ExperimentConfig, place: Path, reporter: Reporter, interruption: Interruption
) -> dict[str, Any]:
    """Train in ``place``, or go on with what has been begun there; return the summary."""
    resume = (place / CONFIG_FILE).is_file()
    prepare_out(place, resume)
    config = resolve_gpus(build_config(twin), learner_gpus(twin.rllib))
    return Run(twin, config, place, reporter, interruption, None).run(resume)
