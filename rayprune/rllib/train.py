"""One run: from an experiment to a summary, resumable at every checkpoint."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import ray
from ray.exceptions import RayTaskError
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import DEFAULT_MODULE_ID

from rayprune.config import ExperimentConfig, load_experiment, to_yaml
from rayprune.errors import ConfigError, NonFiniteError, RaypruneError, RunError
from rayprune.pruning.pruner import LayerCount
from rayprune.rllib import checkpoints, rows
from rayprune.rllib.barrier import cross_barrier
from rayprune.rllib.callback import learner_reports
from rayprune.rllib.evaluation import Evaluator
from rayprune.rllib.experiment import build_config, config_of
from rayprune.rllib.interruption import Interrupted, Interruption
from rayprune.rllib.resources import check_resources, connect, learner_gpus, resolve_gpus
from rayprune.rllib.start import start_from
from rayprune.rllib.summary import Subject, measure, summarise_run
from rayprune.tracking.progress import Reporter
from rayprune.tracking.record import Record, prepare_out, to_json, write_atomic
from rayprune.tracking.tracker import Tracker, open_tracker
from rayprune.tracking.versions import versions

SUMMARY_FILE: Final = "summary.json"
RECORD_FILE: Final = "results.jsonl"
CONFIG_FILE: Final = "config.yaml"
DENSE_DIRECTORY: Final = "dense"
_MAY_DIFFER: Final = {"stop", "tracking"}


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
        out: the run's directory.
        resume: go on from the newest checkpoint in ``out``.
        address: a Ray cluster, None for `RAY_ADDRESS` or an own Ray.
        reporter: told of the progress.

    Raises:
        InputError: something asked for can't be done; nothing has been trained.
        RunError: training failed; the last good checkpoint is intact.
        Interrupted: a signal asked to stop; a checkpoint has been written.
    """
    prepare_out(out, resume)
    if resume:
        check_same_run(experiment, out / CONFIG_FILE)
    config = build_config(experiment)
    with _ray(address, config), Interruption(reporter.message) as interruption:
        config = resolve_gpus(config, learner_gpus(experiment.rllib))
        check_resources(config)
        if not resume:
            # Before the twin is trained: an interrupted one must find a run to go on with.
            write_atomic(out / CONFIG_FILE, to_yaml(experiment, versions()))
        dense = dense_reference(experiment, out, reporter, interruption)
        test = None if dense is None else dense["test"]
        summary = Run(experiment, config, out, reporter, interruption, test).run(resume)
    reporter.close()
    return summary


def check_same_run(experiment: ExperimentConfig, held: Path) -> None:
    """Raise ConfigError unless a run can be resumed as ``experiment``.

    Args:
        experiment: what was asked for now.
        held: the config.yaml of the run. `stop` and `tracking` may differ from it: a run may be
            prolonged, and followed elsewhere.
    """
    before = _leaves(load_experiment(held, check_paths=False).model_dump(exclude=_MAY_DIFFER))
    now = _leaves(experiment.model_dump(exclude=_MAY_DIFFER))
    faults = [
        f"`{key}` was {before.get(key)!r} in {str(held)!r}, but is {now.get(key)!r}. "
        "Resume with the run's own config, or give another directory with --out."
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]
    if faults:
        raise ConfigError(faults)


def _leaves(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping) and value:
            found.update(_leaves(value, f"{prefix}{key}."))
        else:
            found[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return found


@contextmanager
def _ray(address: str | None, config: AlgorithmConfig) -> Iterator[None]:
    ours = connect(address, config)
    try:
        yield
    finally:
        if ours:
            ray.shutdown()


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
        Its ``validation`` and ``test`` returns.
    """
    dense, seeds = experiment.evaluation.dense, experiment.evaluation
    if dense is None:
        return None
    if dense != "train":
        directory = checkpoints.locate(Path(dense))
        # In this run's environment, whatever its own was: returns of two tasks don't compare.
        config = config_of(directory).environment(
            experiment.env, env_config=dict(experiment.env_config)
        )
        return {
            "validation": measure(config, directory, seeds.validation_seed, seeds.episodes),
            "test": measure(config, directory, seeds.test_seed, seeds.episodes),
        }
    twin, place = dense_twin(experiment), out / DENSE_DIRECTORY
    resume = (place / CONFIG_FILE).is_file()
    prepare_out(place, resume)
    config = resolve_gpus(build_config(twin), learner_gpus(twin.rllib))
    returns = Run(twin, config, place, reporter, interruption, None).run(resume)["returns"]
    return {"validation": returns["validation"], "test": returns["test"]}


def dense_twin(experiment: ExperimentConfig) -> ExperimentConfig:
    """Return the experiment that differs in nothing but that it prunes nothing."""
    return experiment.model_copy(
        update={
            "name": f"{experiment.name}-dense",
            # The schedule stays: it says from when on checkpoints are candidates for the best.
            "pruning": experiment.pruning.replace(
                sparsity=0.0, threshold=None, groups={}, distribution="uniform", protect=()
            ),
            "evaluation": experiment.evaluation.model_copy(update={"dense": None}),
        }
    )


@dataclass
class Progress:
    """What a run knows of itself; saved with each checkpoint."""

    env_steps: int = 0
    updates: int = 0
    iteration: int = 0
    wall_time_s: float = 0.0
    best: str | None = None
    """Name of the best checkpoint at the target sparsity."""
    best_score: list[float] | None = None
    """Its validation IQM and mean."""
    newest: str | None = None

    @classmethod
    def from_meta(cls, meta: dict[str, Any]) -> Progress:
        """Return the progress that a checkpoint holds."""
        return cls(**{name: meta[name] for name in vars(cls())})


class Run:
    """One algorithm, trained to its end in one directory."""

    def __init__(
        self,
        experiment: ExperimentConfig,
        config: AlgorithmConfig,
        out: Path,
        reporter: Reporter,
        interruption: Interruption,
        dense: dict[str, Any] | None,
    ) -> None:
        self._experiment = experiment
        self._config = config
        self._out = out
        self._reporter = reporter
        self._interruption = interruption
        self._dense = dense
        self._yaml = to_yaml(experiment, versions())
        self._progress = Progress()
        self._validation: dict[str, Any] | None = None
        self._empty: set[str] = set()

    def run(self, resume: bool) -> dict[str, Any]:
        """Train until the stop criterion, from the newest checkpoint if there is one."""
        finished = self._finished_summary() if resume else None
        if finished is not None:
            self._reporter.message(f"{self._experiment.name} is finished already: {self._out}")
            return finished
        write_atomic(self._out / CONFIG_FILE, self._yaml)
        with open_tracker(self._experiment, self._out, self._reporter.message) as tracker:
            self._train(tracker)
            summary = self._summarise()
            tracker.finish(summary)
        return summary

    def _train(self, tracker: Tracker) -> None:
        self._evaluator = Evaluator(self._config)
        algorithm = self._config.build_algo()
        try:
            self._begin(algorithm)
            keep_until = self._progress.env_steps
            with Record.open(self._out / RECORD_FILE, keep_until=keep_until) as record:
                self._loop(algorithm, record, tracker)
        finally:
            algorithm.stop()
            self._evaluator.close()

    def _begin(self, algorithm: Algorithm) -> None:
        newest = checkpoints.latest(self._out)
        if newest is not None:
            meta = checkpoints.restore(algorithm, newest)
            self._progress = Progress.from_meta(meta)
            self._validation = meta.get("validation")
        elif self._experiment.start_from is not None:
            start_from(algorithm, Path(self._experiment.start_from))
        cross_barrier(algorithm, self._experiment.seed, self._progress.env_steps)
        stop = self._experiment.stop
        self._reporter.start(self._experiment.name, stop.env_steps, self._progress.env_steps)

    def _loop(self, algorithm: Algorithm, record: Record, tracker: Tracker) -> None:
        finished = learner_reports(algorithm)[0][DEFAULT_MODULE_ID]["finished"]
        while not self._done(finished):
            mark = self._evaluation_mark()
            row = self._iterate(algorithm)
            finished = row["pruning_finished"]
            due = self._evaluation_mark() > mark or self._done(finished)
            if due:
                row["validation"] = self._validate(algorithm)
                row.update(self._diagnostics(algorithm))
            record.append(row)
            tracker.row(row)
            self._reporter.iteration(row)
            if due or self._interruption.requested:
                self._checkpoint(algorithm, validated=due)
            if self._interruption.requested:
                raise Interrupted(
                    f"Interrupted at env step {self._progress.env_steps}; "
                    f"checkpoint {self._progress.newest} is written. Go on with --resume."
                )

    def _iterate(self, algorithm: Algorithm) -> dict[str, Any]:
        started = time.monotonic()
        try:
            result = algorithm.train()
        except Exception as error:
            raise self._failure(error, algorithm) from error
        progress = self._progress
        progress.iteration += 1
        progress.wall_time_s += time.monotonic() - started
        row = rows.row_of(result, progress.iteration, progress.wall_time_s, self._experiment)
        progress.env_steps, progress.updates = row["env_steps"], row["updates"]
        loss = row["learner"].get("total_loss")
        if loss is not None and not math.isfinite(loss):
            raise NonFiniteError(
                f"The loss became {loss} at env step {progress.env_steps}. {self._way_back()} "
                "Lower `rllib.training.lr`, or set `rllib.training.grad_clip`."
            )
        return row

    def _validate(self, algorithm: Algorithm) -> dict[str, Any]:
        evaluation = self._experiment.evaluation
        self._evaluator.load(rows.policy_of(algorithm))
        result = self._evaluator.evaluate(evaluation.validation_seed, evaluation.episodes)
        self._validation = result
        self._reporter.evaluation({"env_steps": self._progress.env_steps, **result})
        return result

    def _diagnostics(self, algorithm: Algorithm) -> dict[str, Any]:
        seed = self._experiment.evaluation.validation_seed
        return rows.diagnostics_of(algorithm, self._evaluator, seed)

    def _checkpoint(self, algorithm: Algorithm, validated: bool) -> None:
        progress = self._progress
        report = learner_reports(algorithm)[0][DEFAULT_MODULE_ID]
        name = f"{progress.env_steps or progress.updates:09d}"
        if validated and report["finished"]:
            self._compare_with_best(name)
        self._tell_of_empty_layers(report["layers"])
        progress.newest = name
        meta = {
            **vars(progress),
            "validation": self._validation,
            "pruning": rows.plain_report(report),
        }
        checkpoints.save(algorithm, self._out / "checkpoints" / name, self._yaml, meta)
        checkpoints.prune_old(self._out, keep={name, progress.best or name})
        cross_barrier(algorithm, self._experiment.seed, progress.env_steps)

    def _compare_with_best(self, name: str) -> None:
        assert self._validation is not None
        # Where the IQM is at an environment's ceiling, the mean still counts episodes that fail.
        # Of two equally good policies the later one has trained longer at its sparsity.
        score = [self._validation["iqm"], self._validation["mean"]]
        if self._progress.best_score is None or score >= self._progress.best_score:
            self._progress.best, self._progress.best_score = name, score

    def _tell_of_empty_layers(self, layers: list[LayerCount]) -> None:
        empty = [
            layer.name for layer in layers if layer.sparsity == 1 and layer.name not in self._empty
        ]
        if empty:
            self._empty.update(empty)
            self._reporter.message(
                f"No weight is left in {', '.join(empty)}: what comes after sees constants. List "
                "them under `pruning.protect`, or give `pruning.distribution` a sparsity for each."
            )

    def _evaluation_mark(self) -> int:
        every = self._experiment.evaluation.every
        return 0 if every is None else self._progress.env_steps // every

    def _done(self, pruning_finished: bool) -> bool:
        stop, progress = self._experiment.stop, self._progress
        if stop.env_steps is not None and progress.env_steps >= stop.env_steps:
            return True
        if stop.updates is not None and progress.updates >= stop.updates:
            return True
        # A return reached before the pruning is over says nothing about the pruned policy.
        if stop.return_ is None or self._validation is None:
            return False
        return bool(self._validation["iqm"] >= stop.return_) and pruning_finished

    def _failure(self, error: Exception, algorithm: Algorithm) -> RaypruneError:
        cause = error.cause if isinstance(error, RayTaskError) else error
        where = f"at env step {self._progress.env_steps}"
        if isinstance(cause, RaypruneError):
            return type(cause)(f"{cause} ({where}). {self._way_back()}")
        try:
            broken = any(
                not report["finite"]
                for learner in learner_reports(algorithm)
                for report in learner.values()
            )
        except Exception:  # the Learners themselves may be what failed
            broken = False
        if broken:
            return NonFiniteError(
                f"A weight became NaN or infinite {where}. {self._way_back()} "
                "Lower `rllib.training.lr`, or set `rllib.training.grad_clip`."
            )
        reason = str(cause).strip().splitlines() or [""]
        return RunError(
            f"Training failed {where}: {type(cause).__name__}: {reason[-1]} {self._way_back()}"
        )

    def _way_back(self) -> str:
        if self._progress.newest is None:
            return "No checkpoint had been written yet."
        newest = self._out / "checkpoints" / self._progress.newest
        return f"The last good checkpoint is {newest}; --resume goes on from there."

    def _finished_summary(self) -> dict[str, Any] | None:
        path = self._out / SUMMARY_FILE
        if not path.is_file():
            return None
        summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        stop = self._experiment.stop
        held = load_experiment(self._out / CONFIG_FILE, check_paths=False).stop
        enough = stop.env_steps is not None and summary["env_steps"] >= stop.env_steps
        return summary if enough or stop == held else None

    def _summarise(self) -> dict[str, Any]:
        progress = self._progress
        if progress.best is None:
            self._reporter.message(
                "The target sparsity was not reached before the end, so the summary describes the "
                "last checkpoint. Raise `stop.env_steps`, or end the schedule earlier."
            )
        chosen = self._out / "checkpoints" / str(progress.best or progress.newest)
        summary = summarise_run(Subject.of(self._experiment), chosen, vars(progress), self._dense)
        write_atomic(self._out / SUMMARY_FILE, to_json(summary, indent=2) + "\n")
        return summary
