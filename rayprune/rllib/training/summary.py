"""What a finished run says of itself, measured from its chosen checkpoint alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from rayprune.config import EvaluationConfig, ExperimentConfig
from rayprune.pruning.quantisation.quantiser import told_layers
from rayprune.rllib.checkpoints import files as checkpoints
from rayprune.rllib.diagnostics import Diagnostics
from rayprune.rllib.evaluation.comparison import dense_policy, measure_closeness, measure_shifts
from rayprune.rllib.evaluation.open_policy import OpenPolicy
from rayprune.rllib.experiment.algorithm_config import base_config
from rayprune.statistics.intervals import summarise
from rayprune.tracking.learning import learning_of
from rayprune.tracking.mask_updates import mask_updates_of
from rayprune.tracking.remote import fetch_checkpoint

SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class SummarySubject:
    """Whom a summary is about: the algorithm's config, and the names it goes by."""

    name: str
    algorithm: str
    seed: int
    config: AlgorithmConfig
    evaluation: EvaluationConfig

    @classmethod
    def of(cls, experiment: ExperimentConfig) -> SummarySubject:
        """Return the subject of an experiment's run."""
        return cls(
            name=experiment.name,
            algorithm=experiment.algorithm,
            seed=experiment.seed,
            config=base_config(experiment),
            evaluation=experiment.evaluation,
        )


def summarise_run(
    subject: SummarySubject,
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
    reference = (dense or {}).get("checkpoint")
    with ExitStack() as stack:
        policy = stack.enter_context(OpenPolicy(subject.config, checkpoint))
        opened = None
        if reference is not None:
            opened = stack.enter_context(dense_policy(fetch_checkpoint(reference), subject.config))
        measured = _measured(subject, policy, opened, dense or {}, rows)
        rounding = told_layers(policy.evaluator.module)
    return {
        "schema": SCHEMA,
        "name": subject.name,
        "algorithm": subject.algorithm,
        "env": str(subject.config.env),
        "seed": subject.seed,
        "env_steps": progress["env_steps"],
        "updates": progress["updates"],
        "wall_time_s": round(progress["wall_time_s"], 3),
        **_pruned(checkpoints.read_meta(checkpoint)["pruning"]),
        **measured,
        **({"quantised": rounding} if rounding else {}),
        "latency": None,
        "target_reached": progress["best"] is not None,
        "checkpoint": f"checkpoints/{checkpoint.name}",
    }


def _pruned(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a checkpoint's meta data says of its networks."""
    parameters = report["parameters"]
    return {
        "sparsity": {
            "prunable": report["sparsity"],
            "all": 1 - parameters["nonzero"] / parameters["total"],
            "groups": report["groups"],
            **({"own_groups": own} if (own := report.get("own_groups")) else {}),
            "layers": report["layers"],
        },
        # Of checkpoints from before they were told, nothing is known.
        "uncovered": report.get("uncovered"),
        "cut_off": report.get("cut_off"),
        "parameters": parameters,
    }


def _measured(
    subject: SummarySubject,
    policy: OpenPolicy,
    reference: OpenPolicy | None,
    dense: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Return what playing tells; returns come first, for they aren't allowed to fail."""
    returns = _returns(subject.evaluation, policy, reference, dense)
    seeds, diagnostics = subject.evaluation, Diagnostics()

    def diagnosed(name: str, measure: Callable[..., Any], *arguments: Any) -> Any:
        return diagnostics.take(name, subject.name, partial(measure, *arguments), None)

    found = {
        "flops": diagnosed("flops", policy.flops, seeds.test_seed),
        "sensors": diagnosed("sensors", policy.sensors),
        "returns": returns,
        "closeness": None,
        "learning": None,
        "mask_updates": None,
    }
    if reference is not None:
        first, count = seeds.validation_seed, seeds.episodes
        found["closeness"] = diagnosed(
            "closeness", measure_closeness, policy, reference, first, count
        )
    if rows:
        dense_return = dense.get("validation", {}).get("iqm")
        found["learning"] = diagnosed("learning", learning_of, rows, dense_return)
        found["mask_updates"] = diagnosed("mask updates", mask_updates_of, rows)
    return found


def _returns(
    seeds: EvaluationConfig,
    policy: OpenPolicy,
    reference: OpenPolicy | None,
    dense: Mapping[str, Any],
) -> dict[str, Any]:
    tested = policy.returns(seeds.test_seed, seeds.episodes)
    return {
        "validation": policy.measure(seeds.validation_seed, seeds.episodes),
        "test": summarise(tested),
        "dense_test": dense.get("test"),
        "shifts": measure_shifts(policy, reference, seeds.shifts, seeds.test_seed, tested),
    }
