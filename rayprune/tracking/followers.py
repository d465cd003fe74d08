"""The trackers that a run's `tracking` block asks for, started and ended with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rayprune import yaml12
from rayprune.config import ExperimentConfig, to_yaml
from rayprune.tracking.tensorboard import TensorBoardTracker
from rayprune.tracking.tracker import Tell, Tracker, Trackers, is_installed
from rayprune.tracking.versions import versions
from rayprune.tracking.wandb import WandbTracker


class RunTracker(Trackers):
    """A run's trackers: the end hands them the checkpoint that the summary names."""

    def __init__(self, trackers: Sequence[Tracker], tell: Tell, out: Path) -> None:
        super().__init__(trackers, tell)
        self._out = out

    def __enter__(self) -> RunTracker:
        return self

    def finish(self, summary: Mapping[str, Any] | None) -> None:
        """See `Tracker.finish`."""
        if summary is not None and summary.get("checkpoint") and not self._finished:
            self.artifact(self._out / str(summary["checkpoint"]), "checkpoint")
        super().finish(summary)


def open_tracker(
    experiment: ExperimentConfig,
    out: Path,
    tell: Tell,
    *,
    name: str | None = None,
    group: str | None = None,
    tags: Sequence[str] = (),
) -> RunTracker:
    """Start what the experiment's `tracking` block asks for, as far as it is installed.

    Args:
        experiment: what is run.
        out: the run's directory; ``wandb/`` and ``tensorboard/`` are written in it.
        tell: told once of each thing that is amiss.
        name: what the run is called there; default: the experiment's name and seed.
        group: runs that belong together, such as a sweep's name; default: the experiment's name.
        tags: more tags, such as ``"trial"``.
    """
    tracking, trackers = experiment.tracking, list[Tracker]()
    if tracking.wandb != "off" and is_installed("wandb", tracking, tell):
        trackers.append(
            WandbTracker(
                out,
                mode=tracking.wandb,
                project=tracking.project,
                name=name or f"{experiment.name}-seed{experiment.seed}",
                group=group or experiment.name,
                tags=(*_tags(experiment), *tags),
                tell=tell,
            )
        )
    if tracking.tensorboard and is_installed("tensorboardX", tracking, tell):
        trackers.append(TensorBoardTracker(out))
    tracker = RunTracker(trackers, tell, out)
    tracker.start(yaml12.parse(to_yaml(experiment, versions())))
    return tracker


def _tags(experiment: ExperimentConfig) -> list[str]:
    env = experiment.env.rpartition("/")[2]
    return [experiment.algorithm, env, str(experiment.pruning.criterion)]
