"""Transfer: a new task begun with a trained, usually pruned, policy, and what that was worth."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from rayprune.config import ExperimentConfig
from rayprune.rllib.training.warm_start import TransferredWeights
from rayprune.tracking.record import read_rows, step_of, to_json, write_atomic

TRANSFER_FILE: Final = "transfer.json"
FRESH_DIRECTORY: Final = "fresh"
_RECORD_FILE: Final = "results.jsonl"


def write_start(
    out: Path, taken: TransferredWeights, transferred_return: Mapping[str, Any]
) -> None:
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
