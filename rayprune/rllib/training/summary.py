"""What a finished run says of itself, measured from its chosen checkpoint alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from rayprune.config import EvaluationConfig, ExperimentConfig
from rayprune.rllib.checkpoints import files as checkpoints
from rayprune.rllib.diagnostics import Diagnostics
from rayprune.rllib.evaluation.comparison import (
    dense_policy,
    measure_closeness,
    measure_shifts,
    returns_of,
)
from rayprune.rllib.evaluation.evaluator import Evaluator
from rayprune.rllib.experiment.algorithm_config import base_config
from rayprune.rllib.modules.sensors import sensor_report
from rayprune.statistics.intervals import summarise
from rayprune.tracking.learning import learning_of
from rayprune.tracking.remote import fetch_checkpoint

SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Whom a summary is about: the algorithm's config, and the names it goes by."""

    name: str
    algorithm: str
    seed: int
    config: AlgorithmConfig
    evaluation: EvaluationConfig

    @classmethod
    def of(cls, experiment: ExperimentConfig) -> Subject:
        """Return the subject of an experiment's run."""
        return cls(
            name=experiment.name,
            algorithm=experiment.algorithm,
            seed=experiment.seed,
            config=base_config(experiment),
            evaluation=experiment.evaluation,
        )


def summarise_run(
    subject: Subject,
    checkpoint: Path,
    progress: Mapping[str, Any],
    dense: Mapping[str, Any] | None,
    rows: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Return the content of summary.json.

    A diagnostic in it (FLOPs, sensors, closeness, learning) that fails is told, and is null.

    Args:
        subject: what was run.
        checkpoint: the chosen checkpoint, under the run's ``checkpoints/``.
        progress: the run's counters: env_steps, updates, wall_time_s, best.
        dense: the dense policy's ``test`` returns, if they were asked for; with its
            ``checkpoint`` the two are compared more closely, and its ``validation`` returns are
            the reference of `learning`.
        rows: the run's record, if it has one.
    """
    pruning, evaluation = checkpoints.read_meta(checkpoint)["pruning"], subject.evaluation
    parameters = pruning["parameters"]
    seeds, config = evaluation, subject.config
    policy, dense = (config, checkpoint), dense or {}
    reference = None
    if "checkpoint" in dense:
        reference = dense_policy(fetch_checkpoint(dense["checkpoint"]), config)
    diagnostics = Diagnostics()

    def diagnosed(name: str, measure: Callable[..., Any], *arguments: Any) -> Any:
        return diagnostics.take(name, subject.name, partial(measure, *arguments), None)

    tested = returns_of(policy, seeds.test_seed, seeds.episodes)
    returns = {
        "validation": measure(config, checkpoint, seeds.validation_seed, seeds.episodes),
        "test": summarise(tested),
        "dense_test": dense.get("test"),
        "shifts": measure_shifts(policy, reference, seeds.shifts, seeds.test_seed, tested),
    }
    return {
        "schema": SCHEMA,
        "name": subject.name,
        "algorithm": subject.algorithm,
        "env": str(config.env),
        "seed": subject.seed,
        "env_steps": progress["env_steps"],
        "updates": progress["updates"],
        "wall_time_s": round(progress["wall_time_s"], 3),
        "sparsity": {
            "prunable": pruning["sparsity"],
            "all": 1 - parameters["nonzero"] / parameters["total"],
            "groups": pruning["groups"],
            "layers": pruning["layers"],
        },
        # Of checkpoints from before they were told, nothing is known.
        "uncovered": pruning.get("uncovered"),
        "cut_off": pruning.get("cut_off"),
        "parameters": parameters,
        "flops": diagnosed("flops", policy_flops, config, checkpoint, evaluation.test_seed),
        "sensors": diagnosed("sensors", policy_sensors, config, checkpoint),
        "returns": returns,
        "closeness": None
        if reference is None
        else diagnosed(
            "closeness",
            measure_closeness,
            policy,
            reference,
            seeds.validation_seed,
            seeds.episodes,
        ),
        "learning": diagnosed("learning", learning_of, rows, dense.get("validation", {}).get("iqm"))
        if rows
        else None,
        "latency": None,
        "target_reached": progress["best"] is not None,
        "checkpoint": f"checkpoints/{checkpoint.name}",
    }


def measure(
    config: AlgorithmConfig, checkpoint: Path, first_seed: int, episodes: int
) -> dict[str, Any]:
    """Return mean, IQM and interval of a checkpoint's policy over ``episodes`` seeds."""
    return summarise(returns_of((config, checkpoint), first_seed, episodes))


def policy_flops(config: AlgorithmConfig, checkpoint: Path, seed: int) -> dict[str, int]:
    """Return the FLOPs of one greedy action at batch 1, dense and counting non-zeros only."""
    evaluator = Evaluator(config)
    try:
        evaluator.load_checkpoint(checkpoint)
        return evaluator.flops(seed)
    finally:
        evaluator.close()


def policy_sensors(config: AlgorithmConfig, checkpoint: Path) -> dict[str, list[str]] | None:
    """Return which sensors a checkpoint's policy reads and which can be unplugged."""
    evaluator = Evaluator(config)
    try:
        evaluator.load_checkpoint(checkpoint)
        return sensor_report(evaluator)
    finally:
        evaluator.close()
