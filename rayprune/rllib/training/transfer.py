"""Transfer: a new task begun with a trained, usually pruned, policy, and what that was worth."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from rayprune.config import ExperimentConfig
from rayprune.rllib.cluster.resources import learner_gpus, resolve_gpus
from rayprune.rllib.experiment.algorithm_config import build_config
from rayprune.rllib.training.interruption import Interruption
from rayprune.rllib.training.warm_start import Taken
from rayprune.tracking.record import prepare_out, read_rows, step_of, to_json, write_atomic
from rayprune.tracking.reporter import Reporter

TRANSFER_FILE: Final = "transfer.json"
FRESH_DIRECTORY: Final = "fresh"
_RECORD_FILE: Final = "results.jsonl"


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
    # Run writes the transfer's part of a summary, so it is no import of this module's own.
    from rayprune.rllib.training.run import CONFIG_FILE, Run

    if experiment.transfer is None or not experiment.transfer.fresh:
        return
    fresh, place = fresh_start(experiment), out / FRESH_DIRECTORY
    resume = (place / CONFIG_FILE).is_file()
    prepare_out(place, resume)
    config = resolve_gpus(build_config(fresh), learner_gpus(fresh.rllib))
    Run(fresh, config, place, reporter, interruption, None).run(resume)


def write_start(out: Path, taken: Taken, transferred_return: Mapping[str, Any]) -> None:
    """Keep what was taken over, and what it earned before any training, beside the run's record."""
    content = {
        "kept": taken.kept,
        "new": taken.new,
        "transferred_return": dict(transferred_return),
    }
    write_atomic(out / TRANSFER_FILE, to_json(content, indent=2) + "\n")


def summarise_transfer(experiment: ExperimentConfig, out: Path) -> dict[str, Any]:
    """Return the summary's ``transfer`` entry; nothing for a run that is none."""
    if experiment.transfer is None:
        return {}
    started = json.loads((out / TRANSFER_FILE).read_text(encoding="utf-8"))
    target, fresh = experiment.transfer.target, experiment.transfer.fresh
    steps = {
        "this_run": _steps_to(target, out, started["transferred_return"]),
        "fresh_start": _steps_to(target, out / FRESH_DIRECTORY, None) if fresh else None,
    }
    entry = {"start_from": experiment.start_from, **started, "target": target}
    return {"transfer": {**entry, "steps_to_target": steps}}


def _steps_to(target: float | None, run: Path, at_first: Mapping[str, Any] | None) -> int | None:
    """Return env steps (updates, offline) at the first validation whose IQM reached the target."""
    if target is None:
        return None
    if at_first is not None and at_first["iqm"] >= target:
        return 0
    for row in read_rows(run / _RECORD_FILE):
        if "validation" in row and row["validation"]["iqm"] >= target:
            return step_of(row)
    return None
