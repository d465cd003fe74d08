"""Asynchronous successive halving for several objectives, as a scheduler for Ray Tune.

`MultiObjectiveASHA` works for any Trainable. Tune's own ASHA (Ray 2.60) knows one objective, and
`Tuner.restore` loses its rungs; here each trial's part of them is kept with the trial.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from rayprune.errors import ConfigError, did_you_mean
from rayprune.pruning.checks import is_finite
from rayprune.search.objectives import Objectives
from rayprune.search.schedulers.by_objectives import ByObjectives

_KEPT: Final = "rayprune_rungs"
"""Attribute of a trial's metadata, which Tune writes and restores with the trial."""

Scores = dict[str, float | None]


class MultiObjectiveASHA(ByObjectives, FIFOScheduler):
    """Stops early the trials that no Pareto front needs.

    Schmucker et al. 2021 (arXiv:2106.12639): rungs lie at ``grace_period``, and at
    ``reduction_factor`` times the one before. At a rung all results that have come to it so far are
    ranked by non-dominated sorting, and inside a front farthest-first (their epsilon-net), which is
    `Objectives.rank`; one in ``reduction_factor`` goes on, at least one. This is the variant that
    stops: a trial is judged once, when it comes to a rung, by those that came before it, and never
    waits (Li et al. 2020, arXiv:1810.05934, let trials pause, and resumes those that turn out
    well). With one objective it is ASHA.

    A NaN or infinite objective ranks below every finite one. A result that *lacks* an objective is
    passed over: the next one is judged in its place.

    Args:
        objectives: `Objectives`, or result key -> ``max`` or ``min``.
        max_t: ``time_attr`` at which a trial ends.
        grace_period: ``time_attr`` of the first rung.
        reduction_factor: one in how many goes on at a rung, at least 2.
        time_attr: key of a result that only grows.
        require_attrs: whether an objective that no trial ever reports is an error.

    Raises:
        ConfigError: a fault in the objectives or the numbers.

    >>> MultiObjectiveASHA(objectives={"return": "max"}, max_t=100, grace_period=3).rungs
    (3, 12, 48)
    """

    def __init__(
        self,
        *,
        objectives: Objectives | Mapping[str, str],
        max_t: float,
        grace_period: float = 1,
        reduction_factor: int = 4,
        time_attr: str = "training_iteration",
        require_attrs: bool = True,
    ) -> None:
        if not isinstance(objectives, Objectives):
            objectives = Objectives(directions=objectives)
        _ = objectives.floor  # raises now if the dense return is missing, not after hours
        faults = []
        if not 0 < grace_period <= max_t:
            faults.append(f"`grace_period` must lie in (0, `max_t`], but is {grace_period}.")
        if reduction_factor < 2:
            faults.append(f"`reduction_factor` must be at least 2, but is {reduction_factor}.")
        if faults:
            raise ConfigError(faults)
        super().__init__()  # type: ignore[no-untyped-call]
        self._objectives = objectives
        self._max_t, self._time_attr = max_t, time_attr
        self._reduction_factor = reduction_factor
        self._require_attrs = require_attrs
        self._seen: set[str] = set()
        self._rungs: dict[float, dict[str, Scores]] = {}
        while grace_period < max_t:
            self._rungs[grace_period] = {}
            grace_period *= reduction_factor

    @property
    def rungs(self) -> tuple[float, ...]:
        """Where trials are judged, in units of ``time_attr``."""
        return tuple(self._rungs)

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Take a trial in; one of a restored experiment with the rungs that it has been at."""
        del tune_controller
        for rung, scores in _kept(trial)["rungs"]:
            if rung in self._rungs:
                self._rungs[rung][trial.trial_id] = scores
                self._seen.update(key for key, value in scores.items() if value is not None)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Decide whether a trial that has reported goes on; ``result`` is flat."""
        del tune_controller
        self._seen.update(key for key in self._objectives.keys if key in result)
        if self._time_attr not in result:
            raise ConfigError(
                f"`time_attr` {self._time_attr!r} isn't among the results."
                f"{did_you_mean(self._time_attr, result)}"
            )
        clock = result[self._time_attr]
        # It was to stop before, but the driver was killed before Tune had that on disk.
        if clock >= self._max_t or _kept(trial)["stopped"]:
            return str(TrialScheduler.STOP)
        reached = [
            rung
            for rung, members in self._rungs.items()
            if rung <= clock and trial.trial_id not in members
        ]
        if not reached or not self._is_judged(result):
            return str(TrialScheduler.CONTINUE)
        goes_on = self._judge(trial.trial_id, reached, result)
        self._keep(trial, stopped=not goes_on)
        return str(TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)

    def _is_judged(self, result: Mapping[str, Any]) -> bool:
        """Whether a result holds all objectives; refuse one that no trial has ever reported."""
        never = [key for key in self._objectives.keys if key not in self._seen]
        if never and self._require_attrs:
            raise ConfigError(
                f"The objective {never[0]!r} is in no result.{did_you_mean(never[0], result)} "
                "If it comes later than the first rung, give `require_attrs=False`."
            )
        return all(key in result for key in self._objectives.keys)

    def _judge(self, trial_id: str, reached: list[float], result: Mapping[str, Any]) -> bool:
        """Enter a result at the rungs that are reached; return whether it goes on from the last."""
        scores = {key: _number(result[key]) for key in self._objectives.keys}
        for rung in reached:
            self._rungs[rung][trial_id] = scores
        members = self._rungs[reached[-1]]
        order = self._objectives.rank(list(members.values()))
        going_on = order[: max(1, len(members) // self._reduction_factor)]
        return list(members).index(trial_id) in going_on

    def _keep(self, trial: Trial, stopped: bool) -> None:
        """Keep what the rungs hold of a trial where Tune keeps the trial."""
        held = [
            [rung, members[trial.trial_id]]
            for rung, members in self._rungs.items()
            if trial.trial_id in members
        ]
        setattr(trial.run_metadata, _KEPT, {"rungs": held, "stopped": stopped})


def _kept(trial: Trial) -> dict[str, Any]:
    kept: dict[str, Any] = getattr(trial.run_metadata, _KEPT, {"rungs": [], "stopped": False})
    return kept


def _number(value: Any) -> float | None:
    """Return a measurement as JSON can hold it; None for what is none."""
    return float(value) if is_finite(value) else None
