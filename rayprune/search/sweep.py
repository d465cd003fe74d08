"""One sweep: a population on Ray Tune, a Pareto front at its end."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from ray import tune
from ray.tune import CheckpointConfig, FailureConfig, RunConfig, TuneConfig
from ray.tune.experiment import Trial

from rayprune import yaml12
from rayprune.errors import ConfigError, RunError
from rayprune.rllib.cluster import resources
from rayprune.rllib.cluster.connect import on_ray
from rayprune.rllib.experiment.algorithm_config import base_config, build_config
from rayprune.rllib.export.exportable import export_limits
from rayprune.rllib.training.interruption import Interrupted, Interruption
from rayprune.rllib.training.twins import dense_reference
from rayprune.search.methods import METHODS, SearchTask
from rayprune.search.outcome import SUMMARY_FILE, write_outcome
from rayprune.search.planning.placement import Placement, place
from rayprune.search.reporter import SweepReporter
from rayprune.search.sweep_spec import Sweep
from rayprune.search.trials.journal import Journal
from rayprune.search.trials.trial import RAW, PruningTrial
from rayprune.search.tune.ctrl_c import CtrlC
from rayprune.search.tune.observer import (
    Lineage,
    Observer,
    error_of,
    failed_for_good,
    observing,
)
from rayprune.search.tune.tune_storage import TUNE_DIRECTORY, TuneStorage
from rayprune.storage.copies import commit, mirrored, shown
from rayprune.storage.occupancy import occupied
from rayprune.tracking.record import Record, prepare_out, to_json, write_atomic
from rayprune.tracking.report import write_report
from rayprune.tracking.wandb import track_sweep
from rayprune.tracking.working_time import seconds_before

SWEEP_FILE: Final = "sweep.yaml"
DENSE_FILE: Final = "dense.json"
PROCESSES_FILE: Final = "processes.jsonl"
"""When a process began and ended to work on the sweep: the seconds that all had worked by then."""
REPORT_FILE: Final = "report.html"
CHECKPOINTS_KEPT: Final = 4
"""Of each trial, by Tune: a clone may still be reading one while its donor writes the next."""

_ENVIRONMENT: Final = {
    # Their rows are lost when a trial is paused, resumed or cloned; ours aren't.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # What tells that Ctrl-C has ended it.
    "TUNE_DISABLE_SIGINT_HANDLER": "0",
    # Its own tables: ours are there.
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


_AT_EACH_EVENT: Final = 32
"""Trials up to which Tune's state is written after each event."""
_STATE_S_PER_TRIAL: Final = 0.01
"""Seconds between two writings, for each trial where there are more: some percent of the time."""


def run_sweep(
    raw: Mapping[str, Any],
    out: Path,
    *,
    resume: bool,
    address: str | None,
    reporter: SweepReporter,
) -> dict[str, Any]:
    """Search a population; write the sweep's directory; return its outcome.

    Args:
        raw: the nested mapping that `load_sweep` returned.
        out: the sweep's directory, or its URL in an object store.
        resume: go on with the sweep in ``out``: trials, scores, clocks and lineage.
        address: a Ray cluster, None for ``RAY_ADDRESS`` or an own Ray.
        reporter: told of the progress.

    Returns:
        The content of sweep.json with that of front.json under ``front``.

    Raises:
        InputError: something asked for can't be done; nothing has been trained.
        RunError: trials failed for good; the front of the others has been written.
        Interrupted: Ctrl-C; the population's checkpoints are written.
    """
    with mirrored(
        out, resume=resume, marker=SWEEP_FILE, tell=reporter.message, apart=[TUNE_DIRECTORY]
    ) as home:
        return _run(Sweep.of(raw, home), resume, address, reporter)


def _run(
    sweep: Sweep, resume: bool, address: str | None, reporter: SweepReporter
) -> dict[str, Any]:
    prepare_out(sweep.out, resume, marker=SWEEP_FILE)
    with occupied(sweep.out):
        return _run_alone(sweep, resume, address, reporter)


def _run_alone(
    sweep: Sweep, resume: bool, address: str | None, reporter: SweepReporter
) -> dict[str, Any]:
    if resume:
        _check_same_sweep(sweep)
    config = base_config(sweep.experiment)
    with on_ray(address, config):
        config = resources.resolve_gpus(
            build_config(sweep.experiment), resources.learner_gpus(sweep.experiment.rllib)
        )
        placement = place(config, sweep.search, sweep.trials)
        reporter.message(placement.text)
        if not resume:
            # Not before it is known to fit: what is refused leaves nothing that is in the way.
            write_atomic(sweep.out / SWEEP_FILE, yaml12.dump(yaml12.plain(dict(sweep.raw))))
            commit(sweep.out)
            for limit in export_limits(config):
                reporter.message(limit)
        outcome = _search(sweep, placement, resume, reporter)
    reporter.close()
    track_sweep(sweep.out, sweep.experiment.tracking, reporter.message)
    write_report([sweep.out], sweep.out / REPORT_FILE)
    failed = [trial["trial"] for trial in outcome["trials"] if trial["status"] == "failed"]
    if failed:
        raise RunError(
            f"{len(failed)} of {len(outcome['trials'])} trials failed for good: "
            f"{', '.join(failed)}. The front of the others is in "
            f"{shown(sweep.out / 'front.json')}, and {shown(sweep.out / SUMMARY_FILE)} has the "
            "errors. --resume tries them again."
        )
    return outcome


def _search(
    sweep: Sweep, placement: Placement, resume: bool, reporter: SweepReporter
) -> dict[str, Any]:
    started, before = time.monotonic(), _begin(sweep.out)
    dense = _dense(sweep, reporter)
    if dense is not None and sweep.objectives.needs_dense_return:
        sweep = sweep.with_dense_return(dense["validation"]["iqm"])
    journal = Journal(sweep, reporter)
    reporter.population(sweep.trials, sweep.experiment.stop.env_steps or 0, _headline(sweep))
    with observing(sweep.out, journal, reporter):
        trials = _fit(sweep, placement, resume)
    errors = {
        trial.trial_id: error_of(trial) if trial.status == Trial.ERROR else None for trial in trials
    }
    elapsed = before + time.monotonic() - started
    _note(sweep.out, "ended", elapsed)
    outcome, summaries = write_outcome(sweep, journal, errors, dense, elapsed)
    journal.close(summaries)
    return outcome


def _begin(out: Path) -> float:
    """Note that a process goes to work; return how long those before it have worked."""
    before = seconds_before(out / PROCESSES_FILE)
    _note(out, "began", before)
    return before


def _note(out: Path, event: str, seconds: float) -> None:
    with Record.open(out / PROCESSES_FILE) as record:
        record.append({"event": event, "time_s": round(seconds, 3)})


def _unsaid(record: logging.LogRecord) -> bool:
    """Leave out the traceback of a trial that failed: the reporter tells of it in a line."""
    return not record.getMessage().startswith("Trial task failed")


def _fit(sweep: Sweep, placement: Placement, resume: bool) -> list[Trial]:
    """Let Tune train the population; return its trials.

    Raises:
        Interrupted: Ctrl-C; the population's checkpoints are written.
    """
    trainable = tune.with_resources(PruningTrial, placement.factory())
    storage = TuneStorage.of(sweep.out)
    # A function that is there already is not added again.
    logging.getLogger("ray.tune.execution.tune_controller").addFilter(_unsaid)
    with _environment(sweep.trials):
        for _ in range(sweep.search.max_failures + 1):
            if resume and storage.can_restore():
                tuner = storage.restore(trainable)
            else:
                tuner = _tuner(sweep, trainable, placement)
            with CtrlC() as ctrl_c:
                trials = list(tuner.fit()._experiment_analysis.trials)
                if ctrl_c.ended_it:
                    raise Interrupted(
                        "Interrupted; the population's checkpoints are written. Go on with "
                        "--resume."
                    )
            # Tune gives a trial up, whatever its max_failures, if a second report of one death
            # finds it waiting for its new actor (Ray 2.60, tune_controller.py:1359).
            if not any(
                trial.status == Trial.ERROR and not failed_for_good(trial) for trial in trials
            ):
                break
            resume = True
    return trials


def _tuner(sweep: Sweep, trainable: Any, placement: Placement) -> tune.Tuner:
    raw = {**sweep.raw, "search": sweep.search.model_dump()}
    method, task = METHODS[sweep.search.method], _task(sweep, placement)
    return tune.Tuner(
        trainable,
        param_space={RAW: to_json(raw), **sweep.space.apply({}, method.drawn(sweep.space))},
        tune_config=TuneConfig(
            scheduler=method.scheduler(task),
            search_alg=method.searcher(task),
            num_samples=method.samples(sweep.search),
            reuse_actors=True,
            trial_name_creator=_trial_id,
            trial_dirname_creator=_trial_id,
        ),
        run_config=RunConfig(
            name=TUNE_DIRECTORY,
            **TuneStorage.of(sweep.out).options,
            stop={"env_steps": sweep.experiment.stop.env_steps},
            failure_config=FailureConfig(max_failures=sweep.search.max_failures),
            checkpoint_config=CheckpointConfig(
                # One that copies writes a checkpoint at each decision itself.
                checkpoint_frequency=0 if method.copies else 1,
                checkpoint_at_end=True,
                num_to_keep=CHECKPOINTS_KEPT,
            ),
            callbacks=[Observer(sweep.out)],
            verbose=0,
        ),
    )


def _task(sweep: Sweep, placement: Placement) -> SearchTask:
    search = sweep.search
    return SearchTask(
        fields=search,
        space=sweep.space,
        objectives=sweep.objectives,
        interval=search.interval,
        env_steps=sweep.experiment.stop.env_steps or 1,
        seed=sweep.experiment.seed,
        synch=search.synch if search.synch is not None else placement.at_once < sweep.trials,
        at_once=placement.at_once,
        on_exploit=Lineage(sweep.out),
    )


def _dense(sweep: Sweep, reporter: SweepReporter) -> dict[str, Any] | None:
    """Return the dense policy's returns, trained or measured once; None where nobody asks."""
    experiment, known = sweep.experiment, sweep.objectives.dense_return
    if sweep.objectives.needs_dense_return and experiment.evaluation.dense is None:
        evaluation = experiment.evaluation.model_copy(update={"dense": "train"})
        experiment = experiment.model_copy(update={"evaluation": evaluation})
    path = sweep.out / DENSE_FILE
    if path.is_file():
        held: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return held
    with Interruption(reporter.message) as interruption:
        returns = dense_reference(experiment, sweep.out, reporter, interruption)
    if returns is not None:
        write_atomic(path, to_json(returns, indent=2) + "\n")
    elif known is not None:
        reporter.message(f"The dense return is given: {known:g}.")
    return returns


def _headline(sweep: Sweep) -> dict[str, str]:
    objectives = [f"{name} {way}" for name, way in sweep.objectives.directions.items()]
    return {
        "name": sweep.experiment.name,
        "method": sweep.search.method,
        "objectives": ", ".join([*objectives, *(bound.text for bound in sweep.objectives.limits)]),
    }


def _check_same_sweep(sweep: Sweep) -> None:
    """Refuse to resume another sweep; only `tracking` may differ."""
    path = sweep.out / SWEEP_FILE
    held, now = yaml12.read_mapping(path), yaml12.plain(dict(sweep.raw))
    keys = (held.keys() | now.keys()) - {"tracking"}
    faults = [
        f"`{key}` differs from that of the sweep in {shown(path)!r}. Resume with the sweep's own "
        "config, or give another directory with --out."
        for key in sorted(keys)
        if held.get(key) != now.get(key)
    ]
    if faults:
        raise ConfigError(faults)


def _trial_id(trial: Trial) -> str:
    return str(trial.trial_id)


@contextmanager
def _environment(trials: int) -> Iterator[None]:
    # A driver that is killed loses what it has not written. But each time the state of all trials
    # is written, and the events come faster the more trials there are.
    every = 0.0 if trials <= _AT_EACH_EVENT else trials * _STATE_S_PER_TRIAL
    environment = {**_ENVIRONMENT, "TUNE_GLOBAL_CHECKPOINT_S": f"{every:g}"}
    before = {key: os.environ.get(key) for key in environment}
    os.environ.update(environment)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value
