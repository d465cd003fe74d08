"""Takes a run's decisions that wait for a validation, and has the Learners carry them out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core import DEFAULT_MODULE_ID

from rayprune.config import ExperimentConfig
from rayprune.pruning.config import DEFAULT_HORIZON
from rayprune.pruning.schedules.gate import Gate, GateState, Verdict
from rayprune.pruning.schedules.times import BEGAN, waits_for_return
from rayprune.rllib.callback import learner_reports
from rayprune.rllib.checkpoints.files import locate
from rayprune.rllib.evaluation.open_policy import measure
from rayprune.rllib.experiment.algorithm_config import base_config
from rayprune.rllib.learner.extensions.signals import begin_if_reached, post
from rayprune.rllib.settings.keys import CRITERION, LEVEL


class Director:
    """Begins schedules that wait for a return, and works a return-gated one.

    Args:
        experiment: whose pruning it directs.
        dense: validation returns of the dense policy of `evaluation.dense`; None without one.
    """

    def __init__(self, experiment: ExperimentConfig, dense: dict[str, Any] | None) -> None:
        self._experiment = experiment
        self._pruning = experiment.pruning
        self._dense = None if dense is None else float(dense["iqm"])
        self._gate: Gate | None = None
        self._state = GateState()
        self._began: int | None = None

    @property
    def gated(self) -> bool:
        """Whether it, and not the schedule's end, says which checkpoint is the best."""
        return self._gate is not None

    @property
    def ended(self) -> bool:
        """Whether a gate's search is over."""
        return self._state.ended is not None

    def start(self, algorithm: Algorithm) -> None:
        """Read from the built network what the search is bounded by."""
        report = learner_reports(algorithm)[0][DEFAULT_MODULE_ID]
        if not self._pruning.gated or report["most"] == 0.0:  # at sparsity 0 it is a dense run
            return
        if self._state == GateState() and self._pruning.chosen.granularity.single_weights:
            self._state.trying = report["sparsity"]  # what `start_from` brought
        schedule = self._pruning.schedule
        if schedule["reference"] == "dense":
            schedule = {**schedule, "reference": self._dense_return()}
        self._gate = Gate.of(
            schedule,
            horizon=self._experiment.horizon or DEFAULT_HORIZON,
            most=report["most"],
            criterion=self._pruning.criterion,
        )

    def judge(self, algorithm: Algorithm, validation: dict[str, Any], clock: int) -> Verdict:
        """Decide after a validation; the caller keeps checkpoints and rolls back.

        Args:
            algorithm: between two iterations.
            validation: `Evaluator.evaluate`'s dict.
            clock: env steps so far, rolled back ones included.
        """
        waiting = waits_for_return(self._pruning.schedule) and self._began is None
        if waiting:
            if validation["iqm"] < self._pruning.schedule["begin"]["return"]:
                return Verdict.WAIT
            self._began = clock
            begin_if_reached(algorithm, self._pruning.schedule, validation["iqm"], clock)
        if self._gate is None:
            return Verdict.WAIT
        return self._state.observe(self._gate, clock, validation["iqm"], validation["ci95"][0])

    def instruct(self, algorithm: Algorithm) -> None:
        """Tell the Learners whether pruning has begun, and how far the gate is open now.

        After a checkpoint as after a restore: what they are told holds from their next update on.
        """
        if self._began is not None:
            post(algorithm, {BEGAN: self._began})
        if self._gate is not None and self._state.level is not None and not self.ended:
            signals = {
                LEVEL: self._state.trying,
                CRITERION: self._gate.criteria[self._state.criterion],
            }
            post(algorithm, signals)

    def note(self, verdict: Verdict) -> dict[str, Any]:
        """Return what a row says of a decision; empty where none was to be taken."""
        if self._gate is None:
            return {}
        state = self._state
        return {
            "gate": {
                "verdict": verdict.value,
                "level": state.level,
                "trying": None if self.ended else state.trying,
                "criterion": self._gate.criteria[state.criterion],
                "rollbacks": state.rollbacks,
            }
        }

    @property
    def what_failed(self) -> str:
        """Why a run ends without a best checkpoint, and the way out."""
        if self._gate is not None:
            return (
                "The validation return never held the floor, so nothing was pruned, and the "
                "summary describes the last checkpoint. Raise `stop.env_steps`, or lower "
                "`pruning.schedule.floor` or its `reference`."
            )
        if waits_for_return(self._pruning.schedule) and self._began is None:
            return (
                "The return that `pruning.schedule.begin` waits for was not reached, so nothing "
                "was pruned, and the summary describes the last checkpoint. Lower it, or raise "
                "`stop.env_steps`."
            )
        return (
            "The target sparsity was not reached before the end, so the summary describes the "
            "last checkpoint. Raise `stop.env_steps`, or end the schedule earlier."
        )

    def report(self) -> dict[str, Any]:
        """Return what the summary and the rows say of the decisions; empty if none are taken."""
        found: dict[str, Any] = {}
        if waits_for_return(self._pruning.schedule):
            found["pruning_began"] = self._began
        if self._gate is not None:
            state = self._state
            found["gate"] = {
                "level": state.level,
                "trying": None if self.ended else state.trying,
                "rollbacks": state.rollbacks,
                "ended": state.ended,
                "tries": list(state.tries),
            }
        return found

    def get_state(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {BEGAN: self._began, "gate": self._state.to_dict()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Take over what `get_state` returned."""
        self._began = state[BEGAN]
        self._state = GateState(**state["gate"])

    def _dense_return(self) -> float:
        if self._dense is not None:
            return self._dense
        seeds = self._experiment.evaluation
        start = self._experiment.start_from
        assert start is not None  # `reference: dense` is refused without either
        found = measure(
            base_config(self._experiment),
            locate(Path(start)),
            seeds.validation_seed,
            seeds.episodes,
        )
        return float(found["iqm"])
