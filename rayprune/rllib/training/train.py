"""One run: from an experiment to a summary, resumable at every checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final

from rayprune.config import ExperimentConfig, load_experiment, to_yaml
from rayprune.rllib.cluster.connect import on_ray
from rayprune.rllib.cluster.resources import check_resources, learner_gpus, resolve_gpus
from rayprune.rllib.experiment.algorithm_config import build_config
from rayprune.rllib.export.exportable import export_limits
from rayprune.rllib.settings.kept_parts import forget_kept_parts
from rayprune.rllib.training.interruption import Interruption
from rayprune.rllib.training.run import CONFIG_FILE, Run
from rayprune.rllib.training.same_settings import require_same
from rayprune.rllib.training.twins import dense_reference, train_fresh
from rayprune.storage.copies import commit, mirrored, shown
from rayprune.storage.occupancy import occupied
from rayprune.tracking.record import prepare_out, write_atomic
from rayprune.tracking.reporter import Reporter, telling
from rayprune.tracking.versions import versions

_MAY_DIFFER: Final[dict[str, Any]] = {
    "stop": True,
    "tracking": True,
    "evaluation": {"max_steps": True},
}


def run_training(
    experiment: ExperimentConfig,
    out: Path,
    *,
    resume: bool,
    address: str | None,
    reporter: Reporter,
) -> dict[str, Any]:
    """Train, prune and evaluate; write the run's directory; return its summary.

    Args:
        experiment: what to do.
        out: the run's directory, or its URL in an object store.
        resume: go on from the newest checkpoint in ``out``.
        address: a Ray cluster, None for `RAY_ADDRESS` or an own Ray.
        reporter: told of the progress.

    Raises:
        InputError: something asked for can't be done; nothing has been trained.
        RunError: training failed; the last good checkpoint is intact.
        Interrupted: a signal asked to stop; a checkpoint has been written.
    """
    with (
        telling(reporter.message),
        mirrored(out, resume=resume, marker=CONFIG_FILE, tell=reporter.message) as home,
    ):
        summary = _run(experiment, home, resume, address, reporter)
    reporter.close()
    return summary


def _run(
    experiment: ExperimentConfig, out: Path, resume: bool, address: str | None, reporter: Reporter
) -> dict[str, Any]:
    prepare_out(out, resume)
    with occupied(out):
        return _train(experiment, out, resume, address, reporter)


def _train(
    experiment: ExperimentConfig, out: Path, resume: bool, address: str | None, reporter: Reporter
) -> dict[str, Any]:
    if resume:
        check_same_run(experiment, out / CONFIG_FILE)
    forget_kept_parts()
    config = build_config(experiment)
    with on_ray(address, config), Interruption(reporter.message) as interruption:
        config = resolve_gpus(config, learner_gpus(experiment.rllib))
        check_resources(config)
        if not resume:
            # Before the twin is trained: an interrupted one must find a run to go on with.
            write_atomic(out / CONFIG_FILE, to_yaml(experiment, versions()))
            commit(out)
            for limit in export_limits(config):
                reporter.message(limit)
        with interruption.at_once() if experiment.evaluation.dense != "train" else nullcontext():
            dense = dense_reference(experiment, out, reporter, interruption)
        train_fresh(experiment, out, reporter, interruption)
        return Run(experiment, config, out, reporter, interruption, dense).run(resume)


def check_same_run(experiment: ExperimentConfig, held: Path) -> None:
    """Raise ConfigError unless a run can be resumed as ``experiment``.

    Args:
        experiment: what was asked for now.
        held: the config.yaml of the run. `stop` and `tracking` may differ from it: a run may be
            prolonged, and followed elsewhere. `evaluation.max_steps` may, which training doesn't
            see.
    """
    before = _leaves(load_experiment(held, check_paths=False).model_dump(exclude=_MAY_DIFFER))
    now = _leaves(experiment.model_dump(exclude=_MAY_DIFFER))
    keys = sorted(before.keys() | now.keys())
    before = {key: before.get(key) for key in keys}
    require_same(before, now, shown(held), "the run's own config")


def _leaves(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping) and value:
            found.update(_leaves(value, f"{prefix}{key}."))
        else:
            found[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return found
