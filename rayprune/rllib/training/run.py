"""`Run`: one algorithm, trained to its end in one directory."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Final

from ray.exceptions import RayError
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import DEFAULT_MODULE_ID

from rayprune.config import ExperimentConfig, load_experiment, to_yaml
from rayprune.errors import EnvError, RaypruneError
from rayprune.pruning.schedules.gate_decisions import Verdict
from rayprune.reasons import found_in, reason_of
from rayprune.rllib.actors.kept_parts import kept_everywhere
from rayprune.rllib.actors.learners import foreach_learner, policy_of
from rayprune.rllib.callback import learner_reports, uncovered_lines
from rayprune.rllib.checkpoints import files as checkpoints
from rayprune.rllib.checkpoints.barrier import cross_barrier
from rayprune.rllib.diagnostics import Diagnostics
from rayprune.rllib.evaluation.evaluator import Evaluator
from rayprune.rllib.modules.cut_off import Teller
from rayprune.rllib.torch_threads import fitting_threads
from rayprune.rllib.training import rows
from rayprune.rllib.training.counters import RunCounters
from rayprune.rllib.training.failures import build, check_loss, failure
from rayprune.rllib.training.interruption import Interrupted, Interruption
from rayprune.rllib.training.layer_returns import post_layer_returns
from rayprune.rllib.training.summary import SummarySubject, summarise_run
from rayprune.rllib.training.transfer import summarise_transfer, write_start
from rayprune.rllib.training.validation_driver import Candidate, GateDriver
from rayprune.rllib.training.warm_start import start_from
from rayprune.storage.copies import commit, shown
from rayprune.tracking.followers import open_tracker
from rayprune.tracking.mask_updates import held_back
from rayprune.tracking.record import Record, read_rows, to_json, write_atomic
from rayprune.tracking.reporter import Reporter
from rayprune.tracking.tracker import Tracker
from rayprune.tracking.versions import versions

SUMMARY_FILE: Final = "summary.json"
RECORD_FILE: Final = "results.jsonl"
CONFIG_FILE: Final = "config.yaml"


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
        self._gate = GateDriver(experiment, None if dense is None else dense["validation"])
        self._yaml = to_yaml(experiment, versions())
        self._progress = RunCounters()
        self._validation: dict[str, Any] | None = None
        self._teller = Teller()
        self._measured = Diagnostics()
        self._unsettled: dict[str, Any] | None = None
        self._not_lean: dict[str, str] = {}

    def run(self, resume: bool) -> dict[str, Any]:
        """Train until the stop criterion, from the newest checkpoint if there is one."""
        finished = self._finished_summary() if resume else None
        if finished is not None:
            self._reporter.message(
                f"{self._experiment.name} is finished already: {shown(self._out)}"
            )
            return finished
        write_atomic(self._out / CONFIG_FILE, self._yaml)
        with open_tracker(self._experiment, self._out, self._reporter.message) as tracker:
            self._train(tracker)
            try:
                with self._interruption.at_once():
                    summary = self._summarise()
            except Interrupted:
                raise Interrupted(self._told_interruption()) from None
            except EnvError as error:
                raise EnvError(f"{error} {self._way_back()}") from error
            tracker.finish(summary)
        return summary

    def _train(self, tracker: Tracker) -> None:
        self._evaluator = Evaluator(self._config)
        self._algorithm = build(self._config)
        try:
            with fitting_threads(self._evaluator.module):
                self._begin()
                keep_until = self._progress.clock - (self._unsettled is not None)
                with Record.open(self._out / RECORD_FILE, keep_until=keep_until) as record:
                    self._loop(record, tracker)
                self._not_lean = kept_everywhere(self._algorithm)
        except RayError as error:
            # A node that is lost between two iterations, in a validation or a checkpoint.
            raise self._failed(error) from error
        finally:
            self._algorithm.stop()
            self._evaluator.close()

    def _begin(self) -> None:
        algorithm = self._algorithm
        newest = checkpoints.latest(self._out)
        if newest is not None:
            meta = checkpoints.restore(algorithm, newest)
            self._progress = RunCounters.from_meta(meta)
            self._validation = meta.get("validation")
            self._unsettled = meta.get("unsettled")
            self._gate.set_state(self._progress.director)
        elif self._experiment.start_from is not None:
            self._start_from(Path(self._experiment.start_from))
        for line in uncovered_lines(algorithm):
            self._reporter.message(line)
        self._gate.start(algorithm)
        self._gate.instruct(algorithm)
        cross_barrier(algorithm, self._experiment.seed, self._progress.clock)
        length, done = self._experiment.length, self._progress.clock
        self._reporter.start(self._experiment.name, length, done)

    def _start_from(self, checkpoint: Path) -> None:
        transfer, seeds = self._experiment.transfer, self._experiment.evaluation
        taken = start_from(
            self._algorithm,
            checkpoint,
            partly=transfer is not None,
            masks=not self._experiment.pruning.dense,
        )
        if transfer is not None:
            self._evaluator.load(policy_of(self._algorithm))
            result = self._evaluator.evaluate(seeds.validation_seed, seeds.episodes)
            write_start(self._out, taken, result)
            self._reporter.message(
                f"{len(taken.kept)} of {len(taken.kept) + len(taken.new)} parameters are "
                f"transferred; before training the IQM is {result['iqm']:.1f}."
            )

    def _loop(self, record: Record, tracker: Tracker) -> None:
        commit(self._out)  # without the rows that will be done again
        if self._unsettled is not None:
            self._settle(record, tracker, **self._unsettled)
        finished = learner_reports(self._algorithm)[0][DEFAULT_MODULE_ID]["finished"]
        while not self._done(finished):
            mark = self._evaluation_mark()
            row = self._iterate(self._algorithm)
            finished = row["pruning_finished"]
            due = self._evaluation_mark() > mark or self._done(finished)
            if due:
                # Before the validation, which a fault of the environment, or a kill, may end.
                self._save(self._algorithm, unsettled={"row": row, "due": due})
                if self._interruption.requested:
                    raise Interrupted(self._told_interruption())
            for line in self._teller.lines(DEFAULT_MODULE_ID, row["cut_off"]):
                self._reporter.message(line)
            self._settle(record, tracker, row, due)

    def _settle(self, record: Record, tracker: Tracker, row: dict[str, Any], due: bool) -> None:
        """Do what follows an iteration: validate, decide, record; keep it, where that is due.

        Where it is due a checkpoint is there already, which says what is still to be done.
        """
        try:
            with self._interruption.at_once():
                row.update(self._layer_returns())
                verdict = self._judge(row) if due else Verdict.WAIT
        except (EnvError, Interrupted) as error:
            if not due:
                self._save(self._algorithm, unsettled={"row": row, "due": due})
            if isinstance(error, Interrupted):
                raise Interrupted(self._told_interruption()) from None
            raise self._failed(error) from error
        record.append(row)
        tracker.row(row)
        self._reporter.iteration(row)
        if verdict is Verdict.ROLL_BACK:
            self._roll_back()
        if due or self._interruption.requested:
            self._keep(self._algorithm, row, due, verdict)
        if self._interruption.requested:
            raise Interrupted(self._told_interruption())

    def _judge(self, row: dict[str, Any]) -> Verdict:
        """Validate, and let the driver decide what follows."""
        row["validation"] = self._validate(self._algorithm)
        row.update(self._diagnostics(self._algorithm))
        clock = self._progress.clock
        behind = "pruning_behind" in row
        verdict = self._gate.judge(self._algorithm, row["validation"], clock, behind=behind)
        row.update(self._gate.note(verdict))
        return verdict

    def _roll_back(self) -> None:
        """Go on from the best checkpoint, in a new algorithm: a running one keeps its weights."""
        best = self._out / "checkpoints" / str(self._progress.best)
        self._reporter.message(f"Rolled back to {best.name} at {self._progress.moment}.")
        self._algorithm.stop()
        self._algorithm = build(self._config)
        meta = checkpoints.restore(self._algorithm, best)
        self._validation = meta["validation"]
        self._progress.discard_since(meta)

    def _iterate(self, algorithm: Algorithm) -> dict[str, Any]:
        progress, started = self._progress, time.monotonic()
        before = progress.updates
        try:
            result = algorithm.train()
        except Exception as error:
            self._rescue(error)
            raise self._failed(error) from error
        progress.iteration += 1
        progress.wall_time_s += time.monotonic() - started
        row = rows.row_of(result, progress.iteration, progress.wall_time_s, self._experiment)
        row["env_steps"] += progress.discarded_env_steps
        row["updates"] += progress.discarded_updates
        progress.env_steps, progress.updates = row["env_steps"], row["updates"]
        for reason in row.get("lost", ()):
            self._reporter.message(f"{reason.rstrip('.')} (at {progress.moment}).")
        check_loss(row, before, algorithm, progress.moment, self._way_back())
        return row

    def _validate(self, algorithm: Algorithm) -> dict[str, Any]:
        evaluation = self._experiment.evaluation
        self._evaluator.load(policy_of(algorithm))
        result = self._evaluator.evaluate(evaluation.validation_seed, evaluation.episodes)
        self._validation = result
        progress = self._progress
        moment = {"env_steps": progress.env_steps, "updates": progress.updates}
        self._reporter.evaluation({**moment, **result})
        return result

    def _layer_returns(self) -> dict[str, Any]:
        if not self._experiment.pruning.needs_returns:
            return {}
        seeds = self._experiment.evaluation
        lost = post_layer_returns(
            self._algorithm, self._evaluator, seeds.validation_seed, seeds.episodes
        )
        return {"layer_returns": lost} if lost else {}

    def _diagnostics(self, algorithm: Algorithm) -> dict[str, Any]:
        seed = self._experiment.evaluation.validation_seed
        return rows.diagnostics_of(algorithm, self._evaluator, seed, self._measured)

    def _keep(self, algorithm: Algorithm, row: dict[str, Any], due: bool, verdict: Verdict) -> None:
        """Keep what an iteration came to, in the checkpoint that was written before validating."""
        progress, name = self._progress, f"{self._progress.clock:09d}"
        if due and self._validation is not None:
            candidate = Candidate(
                name, self._validation, verdict, lambda: row["pruning_finished"] or self._arrived()
            )
            self._gate.choose_best(progress, candidate)
        # Another algorithm, or Learners that know more, than when that one was written.
        changed = verdict is Verdict.ROLL_BACK or "layer_returns" in row
        self._save(algorithm, whole=changed or not due)
        if due:
            self._gate.instruct(algorithm)
        cross_barrier(algorithm, self._experiment.seed, progress.clock)

    def _save(
        self, algorithm: Algorithm, *, unsettled: dict[str, Any] | None = None, whole: bool = True
    ) -> None:
        """Write a checkpoint, or but what the run knows beside one.

        Args:
            algorithm: between two iterations.
            unsettled: what is still to be done of the last iteration, as `_settle` takes it.
            whole: False where the checkpoint's other content is there already.
        """
        progress, name = self._progress, f"{self._progress.clock:09d}"
        report = learner_reports(algorithm)[0][DEFAULT_MODULE_ID]
        progress.newest, progress.director = name, self._gate.get_state()
        meta = {
            **vars(progress),
            "validation": self._validation,
            "pruning": rows.plain_report(report),
            **({} if unsettled is None else {"unsettled": unsettled}),
        }
        directory = self._out / "checkpoints" / name
        if whole:
            checkpoints.save(algorithm, directory, self._yaml, meta)
        else:
            checkpoints.save_meta(directory, meta)
        checkpoints.prune_old(self._out, keep={name, progress.best or name})
        commit(self._out)

    def _rescue(self, error: Exception) -> None:
        """Keep what has been learnt since the last checkpoint, if it's an environment that failed.

        The Learners are whole then, and between two updates.
        """
        new = self._progress.clock > int(self._progress.newest or 0)
        if found_in(error, EnvError) is None or not new:
            return
        try:
            self._save(self._algorithm)
        except (RayError, RaypruneError) as fault:
            self._reporter.message(f"No checkpoint could be written: {reason_of(fault)}.")

    def _told_interruption(self) -> str:
        return (
            f"Interrupted at {self._progress.moment}; "
            f"checkpoint {self._progress.newest} is written. Go on with --resume."
        )

    def _arrived(self) -> bool:
        """Whether a policy that was taken over is at its target, maybe from the first step on."""
        if self._experiment.start_from is None:
            return False
        arrived = foreach_learner(self._algorithm, lambda learner: learner.arrived())
        return bool(arrived[0][DEFAULT_MODULE_ID])

    def _evaluation_mark(self) -> int:
        every = self._experiment.evaluation.every
        return 0 if every is None else self._progress.clock // every

    def _done(self, pruning_finished: bool) -> bool:
        return self._gate.ended or self._progress.done(
            self._experiment.stop, self._validation, pruning_finished
        )

    def _failed(self, error: Exception) -> RaypruneError:
        return failure(error, self._algorithm, self._progress.moment, self._way_back())

    def _way_back(self) -> str:
        if self._progress.newest is None:
            return "No checkpoint had been written yet."
        newest = self._out / "checkpoints" / self._progress.newest
        return f"The last good checkpoint is {shown(newest)}; --resume goes on from there."

    def _finished_summary(self) -> dict[str, Any] | None:
        path = self._out / SUMMARY_FILE
        if not path.is_file():
            return None
        summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        stop = self._experiment.stop
        held = load_experiment(self._out / CONFIG_FILE, check_paths=False).stop
        length = self._experiment.length
        clock = summary["updates" if self._experiment.offline else "env_steps"]
        enough = length is not None and clock >= length
        return summary if enough or stop == held else None

    def _summarise(self) -> dict[str, Any]:
        progress = self._progress
        subject, record = SummarySubject.of(self._experiment), read_rows(self._out / RECORD_FILE)
        if progress.best is None:
            why = held_back(self._experiment.pruning, record)
            self._reporter.message(f"{self._gate.what_failed}{why}")
        chosen = self._out / "checkpoints" / str(progress.best or progress.newest)
        summary = summarise_run(subject, chosen, vars(progress), self._dense, record)
        summary["not_lean"] = self._not_lean
        summary.update(self._gate.report())
        summary.update(summarise_transfer(self._experiment, self._out))
        write_atomic(self._out / SUMMARY_FILE, to_json(summary, indent=2) + "\n")
        commit(self._out)
        return summary
