"""From RLlib's nested results to the flat rows of the record."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    EPISODE_LEN_MEAN,
    EPISODE_RETURN_MEAN,
    LEARNER_RESULTS,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    NUM_EPISODES,
)

from rayprune.config import ExperimentConfig
from rayprune.rllib.actors.learners import foreach_learner
from rayprune.rllib.callback import LOST_KEY, RESULT_KEY, learner_reports
from rayprune.rllib.diagnostics import Diagnostics
from rayprune.rllib.evaluation.evaluator import Evaluator
from rayprune.tracking.mask_updates import row_of_updates


def row_of(
    result: Mapping[str, Any], iteration: int, wall_time_s: float, experiment: ExperimentConfig
) -> dict[str, Any]:
    """Return one row of results.jsonl.

    Args:
        result: what ``Algorithm.train()`` returned, with PruningCallback's part.
        iteration: counted over interruptions.
        wall_time_s: seconds of training so far, interruptions left out.
        experiment: for the sparsity aimed at.
    """
    sampled = result.get(ENV_RUNNER_RESULTS, {})
    steps = result.get(NUM_ENV_STEPS_SAMPLED_LIFETIME)
    pruning = result[RESULT_KEY][DEFAULT_MODULE_ID]
    return {
        "iteration": iteration,
        # RLlib's BC counts the rows that it reads as sampled.
        "env_steps": 0 if experiment.offline else int(steps or 0),
        "updates": pruning["updates"],
        "time_s": round(wall_time_s, 3),
        "return_mean": _number(sampled.get(EPISODE_RETURN_MEAN)),
        "episode_len_mean": _number(sampled.get(EPISODE_LEN_MEAN)),
        "episodes": _number(sampled.get(NUM_EPISODES)),
        "sparsity": pruning["sparsity"],
        "target_sparsity": experiment.pruning.target,
        "groups": pruning["groups"],
        **({"own_groups": own} if (own := pruning["own_groups"]) else {}),
        "layers": pruning["layers"],
        "parameters": pruning["parameters"],
        "mask_churn": pruning["churn"],
        **row_of_updates(pruning["mask_updates"]),
        "itop": pruning["itop"],
        "pruning_finished": pruning["finished"],
        **({"pruning_behind": True} if pruning["behind"] else {}),
        "cut_off": pruning["cut_off"],
        "learner": learner_numbers(result),
        **({"lost": lost} if (lost := result.get(LOST_KEY)) else {}),
        **({"plasticity": measured} if (measured := pruning["plasticity"]) else {}),
    }


def learner_numbers(result: Mapping[str, Any]) -> dict[str, float]:
    """Return the plain numbers that the default policy's Learner logged, NaN included."""
    logged = result.get(LEARNER_RESULTS, {}).get(DEFAULT_MODULE_ID, {})
    return {name: float(value) for name, value in logged.items() if isinstance(value, (int, float))}


def diagnostics_of(
    algorithm: Algorithm, evaluator: Evaluator, seed: int, diagnostics: Diagnostics
) -> dict[str, Any]:
    """Return what a row with a validation holds beside it: score histograms, dead units, FLOPs.

    Args:
        algorithm: between two iterations.
        evaluator: holds the current policy.
        seed: of the episode whose first observation the FLOPs are counted on.
        diagnostics: of the run; what has failed is left out.
    """
    held = foreach_learner(algorithm, lambda learner: learner.diagnostics())[0]
    flops = diagnostics.take("flops", DEFAULT_MODULE_ID, lambda: evaluator.flops(seed), None)
    return {**held[DEFAULT_MODULE_ID], **({} if flops is None else {"flops": flops})}


def pruning_meta(algorithm: Algorithm) -> dict[str, Any]:
    """Return `plain_report` of the default policy on the first Learner."""
    return plain_report(learner_reports(algorithm)[0][DEFAULT_MODULE_ID])


def plain_report(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON-able part of a Learner's pruning report for a checkpoint's meta data."""
    return {
        "sparsity": report["sparsity"],
        "groups": report["groups"],
        **({"own_groups": own} if (own := report["own_groups"]) else {}),
        "parameters": report["parameters"],
        "finished": report["finished"],
        "uncovered": report["uncovered"],
        "cut_off": report["cut_off"],
        "layers": [dataclasses.asdict(layer) for layer in report["layers"]],
    }


def _number(value: Any) -> float | None:
    if value is None or not math.isfinite(value):
        return None
    return float(value)
