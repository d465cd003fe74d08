"""Drives what waits for validations: schedules that begin at a return, and the return's gate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core import DEFAULT_MODULE_ID

from rayprune.config import ExperimentConfig
from rayprune.pruning.config import DEFAULT_HORIZON
from rayprune.pruning.schedules.gate_decisions import Gate, GateState, Verdict
from rayprune.pruning.schedules.times import BEGAN, waits_for_return
from rayprune.rllib.callback import learner_reports
from rayprune.rllib.checkpoints.files import fetch
from rayprune.rllib.evaluation.open_policy import measure
from rayprune.rllib.experiment.algorithm_config import base_config
from rayprune.rllib.learner.extensions.signals import begin_if_reached, post
from rayprune.rllib.settings.keys import CRITERION, LEVEL
from rayprune.rllib.training.counters import RunCounters


@dataclass(frozen=True, slots=True)
class Candidate:
    """A checkpoint that may be the best."""

    name: str
    validation: dict[str, Any]
    """Its own."""
    verdict: Verdict
    """`GateDriver.judge`'s."""
    at_target: Callable[[], bool]
    """Whether it is as sparse as it shall be; asked where no gate decides."""


class NoGate:
    """Stands where no gate decides: the schedule's end says from when on checkpoints compete."""

    @property
    def ended(self) -> bool:
        """Whether the search is over."""
        return False

    def what_failed(self, *, waits: bool) -> str:
        """Return why a run ends without a best checkpoint, and the way out.

        Args:
            waits: whether pruning is still to begin, at a return.
        """
        if waits:
            return (
                "The return that `pruning.schedule.begin` waits for was not reached, so nothing "
                "was pruned, and the summary describes the last checkpoint. Lower it, or raise "
                "`stop.env_steps`."
            )
        return (
            "The target sparsity was not reached before the end, so the summary describes the "
            "last checkpoint. Raise `stop.env_steps`, or end the schedule earlier."
        )

    def observe(self, validation: dict[str, Any], clock: int, *, behind: bool) -> Verdict:
        """Decide after a validation; `GateDriver.judge` has the arguments."""
        return Verdict.WAIT

    def signals(self) -> dict[str, Any]:
        """Return what the Learners are to be told."""
        return {}

    def choose_best(self, counters: RunCounters, candidate: Candidate) -> None:
        """Make a checkpoint the best, if it is; `GateDriver.choose_best` has the arguments."""
        if candidate.at_target():
            counters.compare_with_best(candidate.name, candidate.validation)

    def note(self, verdict: Verdict) -> dict[str, Any]:
        """Return what a row says of a decision."""
        return {}

    def report(self) -> dict[str, Any]:
        """Return what the summary says of the search."""
        return {}


class ReturnGate(NoGate):
    """A search for the sparsity that the return allows, between a run and its Learners.

    Args:
        gate: its settings.
        state: where it stands; changed by `observe`.
    """

    def __init__(self, gate: Gate, state: GateState) -> None:
        self._gate, self._state = gate, state

    @property
    def ended(self) -> bool:
        """See `NoGate.ended`."""
        return self._state.ended is not None

    def what_failed(self, *, waits: bool) -> str:
        """See `NoGate.what_failed`."""
        return (
            "The validation return never held the floor, so nothing was pruned, and the "
            "summary describes the last checkpoint. Raise `stop.env_steps`, or lower "
            "`pruning.schedule.floor` or its `reference`."
        )

    def observe(self, validation: dict[str, Any], clock: int, *, behind: bool) -> Verdict:
        """See `NoGate.observe`."""
        low = validation["ci95"][0]
        return self._state.observe(self._gate, clock, validation["iqm"], low, behind=behind)

    def signals(self) -> dict[str, Any]:
        """See `NoGate.signals`."""
        if self._state.level is None or self.ended:
            return {}
        return {LEVEL: self._state.trying, CRITERION: self._criterion}

    def choose_best(self, counters: RunCounters, candidate: Candidate) -> None:
        """See `NoGate.choose_best`."""
        if candidate.verdict is Verdict.ACCEPT:
            counters.accept(candidate.name, candidate.validation)

    def note(self, verdict: Verdict) -> dict[str, Any]:
        """See `NoGate.note`."""
        return {
            "gate": {
                "verdict": verdict.value,
                "level": self._state.level,
                "trying": self._trying,
                "criterion": self._criterion,
                "rollbacks": self._state.rollbacks,
            }
        }

    def report(self) -> dict[str, Any]:
        """See `NoGate.report`."""
        return {
            "gate": {
                "level": self._state.level,
                "trying": self._trying,
                "rollbacks": self._state.rollbacks,
                "ended": self._state.ended,
                "tries": list(self._state.tries),
            }
        }

    @property
    def _trying(self) -> float | None:
        return None if self.ended else self._state.trying

    @property
    def _criterion(self) -> str:
        return self._gate.criteria[self._state.criterion]


class GateDriver:
    """Begins schedules that wait for a return, and works a return-gated one.

    Args:
        experiment: whose pruning it drives.
        dense: validation returns of the dense policy of `evaluation.dense`; None without one.
    """

    def __init__(self, experiment: ExperimentConfig, dense: dict[str, Any] | None) -> None:
        self._experiment = experiment
        self._pruning = experiment.pruning
        self._dense = None if dense is None else float(dense["iqm"])
        self._gate = NoGate()
        self._state = GateState()
        self._began: int | None = None

    @property
    def ended(self) -> bool:
        """Whether a gate's search is over."""
        return self._gate.ended

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
        gate = Gate.of(
            schedule,
            horizon=self._experiment.horizon or DEFAULT_HORIZON,
            most=report["most"],
            criterion=self._pruning.criterion,
        )
        self._gate = ReturnGate(gate, self._state)

    def judge(
        self,
        algorithm: Algorithm,
        validation: dict[str, Any],
        clock: int,
        *,
        behind: bool = False,
    ) -> Verdict:
        """Decide after a validation; the caller keeps checkpoints and rolls back.

        Args:
            algorithm: between two iterations.
            validation: `Evaluator.evaluate`'s dict.
            clock: env steps so far, rolled back ones included.
            behind: whether masks are not as sparse yet as they were told to be.
        """
        if self._waits:
            if validation["iqm"] < self._pruning.schedule["begin"]["return"]:
                return Verdict.WAIT
            self._began = clock
            begin_if_reached(algorithm, self._pruning.schedule, validation["iqm"], clock)
        return self._gate.observe(validation, clock, behind=behind)

    def choose_best(self, counters: RunCounters, candidate: Candidate) -> None:
        """Make a checkpoint the best, if it is.

        Args:
            counters: know the best one so far.
            candidate: the checkpoint.
        """
        self._gate.choose_best(counters, candidate)

    def instruct(self, algorithm: Algorithm) -> None:
        """Tell the Learners whether pruning has begun, and how far the gate is open now.

        After a checkpoint as after a restore: what they are told holds from their next update on.
        """
        if self._began is not None:
            post(algorithm, {BEGAN: self._began})
        if signals := self._gate.signals():
            post(algorithm, signals)

    def note(self, verdict: Verdict) -> dict[str, Any]:
        """Return what a row says of a decision; empty where none was to be taken."""
        return self._gate.note(verdict)

    @property
    def what_failed(self) -> str:
        """Why a run ends without a best checkpoint, and the way out."""
        return self._gate.what_failed(waits=self._waits)

    def report(self) -> dict[str, Any]:
        """Return what the summary says of the decisions; empty if none are taken."""
        began = {"pruning_began": self._began} if waits_for_return(self._pruning.schedule) else {}
        return {**began, **self._gate.report()}

    def get_state(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {BEGAN: self._began, "gate": self._state.to_dict()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Take over what `get_state` returned; before `start`."""
        self._began = state[BEGAN]
        self._state = GateState(**state["gate"])

    @property
    def _waits(self) -> bool:
        """Whether pruning is still to begin, at a return."""
        return waits_for_return(self._pruning.schedule) and self._began is None

    def _dense_return(self) -> float:
        if self._dense is not None:
            return self._dense
        seeds = self._experiment.evaluation
        start = self._experiment.start_from
        assert start is not None  # `reference: dense` is refused without either
        found = measure(
            base_config(self._experiment),
            fetch(start),
            seeds.validation_seed,
            seeds.episodes,
        )
        return float(found["iqm"])
