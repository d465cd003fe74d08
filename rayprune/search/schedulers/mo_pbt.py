"""Population-based training for several objectives, as a scheduler for Ray Tune.

`MultiObjectivePBT` works for any Trainable. Beside the ranking it mends what upstream's
`PopulationBasedTraining` (Ray 2.60) gets wrong: values that are mutated out of their bounds, a
population whose scores and clocks are lost by ``Tuner.restore``, synchronous rounds that wait for
ever for a trial that has ended or failed, and actors that are thrown away at each exploit.
"""

from __future__ import annotations

import logging
import math
import random
import time as wall_clock
from collections.abc import Callable, Mapping
from typing import Any, Final

from ray.train._internal.session import _FutureTrainingResult
from ray.tune.experiment import Trial
from ray.tune.schedulers import PopulationBasedTraining, TrialScheduler
from ray.tune.schedulers.pbt import _PBTTrialState
from ray.tune.utils import flatten_dict

from rayprune.errors import ConfigError, did_you_mean
from rayprune.search.domains import FACTORS, RESAMPLE
from rayprune.search.objectives import Objectives
from rayprune.search.schedulers.by_objectives import ByObjectives
from rayprune.search.schedulers.kept_actors import KeptActors, controller_of
from rayprune.search.space import Space

_LOG: Final = logging.getLogger(__name__)


Exploit = dict[str, Any]
"""One exploit, for `on_exploit`; see `MultiObjectivePBT`."""


class _State(_PBTTrialState):
    """What the scheduler knows of a trial."""

    last_train_time: float  # type: ignore[assignment]
    last_perturbation_time: float  # type: ignore[assignment]

    def __init__(self, trial: Trial) -> None:
        super().__init__(trial)
        self.scores: dict[str, Any] | None = None
        """What it reported last; None before that, and for a clone until it reports itself."""


class MultiObjectivePBT(ByObjectives, PopulationBasedTraining):
    """Population-based training that spreads the population along a Pareto front.

    Dushatskiy et al. 2023 (arXiv:2306.01436): at each interval the population is ranked by
    non-dominated sorting, and inside a front by greedy scattered subset selection. The worst
    quarter copies weights and hyperparameters from a random member of the best quarter, and
    explores around them.

    A NaN or infinite objective ranks below every finite one, and is never copied from. A result
    that *lacks* an objective (a row without a validation, say) is passed over until one has it; if
    none does within a further interval, the trial counts as not measured.

    Args:
        objectives: `Objectives`, or result key -> ``max`` or ``min``. Nested results are named
            ``env_runners/episode_return_mean``.
        space: what is mutated, at dotted keys of the trial's config.
        hyperparam_mutations: in place of ``space``: nested ``tune.*`` domains, as upstream has
            them; `domains_in` collects them from a ``param_space``. Values stay inside the bounds.
        time_attr: key of a result that only grows.
        perturbation_interval: how far ``time_attr`` goes between two decisions on a trial. Make it
            much longer than an actor takes to start.
        burn_in_period: ``time_attr`` before the first decision.
        quantile_fraction: share of the population that is replaced each time.
        resample_probability: of drawing a value anew instead of moving it.
        perturbation_factors: by what a number is multiplied.
        custom_explore_fn: called with the new config after that; returns the one to use.
        synch: whether all trials wait for each other at each interval. Without it a trial that
            reports early is compared with older scores of the others, which flatter it; with
            fewer slots than trials that leaves few to be replaced, and True serves better.
        on_exploit: called with a dict per exploit: ``trial`` and ``donor`` (ids), ``clock``
            (``time_attr`` that the clone goes on from), ``changed`` (dotted key -> [the trial's old
            value, its new one]), ``scores`` and ``donor_scores`` (what each was judged by),
            ``result`` (the trial's last, flat, its plain numbers and texts), and ``time`` (seconds
            since the epoch). It is pickled with the Tuner, so after ``Tuner.restore`` a copy is
            called: let it write to a file, not to a list.
        seed: of the donors' choice and the mutations. Trials report in no fixed order, so an
            asynchronous search isn't reproduced by it.
        require_attrs: whether an objective that no trial ever reports is an error.
        log_config: whether upstream's ``pbt_policy_*.txt`` files are written.

    Raises:
        ConfigError: a fault in the objectives or the space.
    """

    _trial_state: dict[Trial, _State]  # type: ignore[assignment]

    def __init__(
        self,
        *,
        objectives: Objectives | Mapping[str, str],
        perturbation_interval: float,
        space: Space | None = None,
        hyperparam_mutations: Mapping[str, Any] | None = None,
        time_attr: str = "training_iteration",
        burn_in_period: float = 0.0,
        quantile_fraction: float = 0.25,
        resample_probability: float = RESAMPLE,
        perturbation_factors: tuple[float, float] = FACTORS,
        custom_explore_fn: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
        synch: bool = False,
        on_exploit: Callable[[Exploit], None] | None = None,
        seed: int | None = None,
        require_attrs: bool = True,
        log_config: bool = False,
    ) -> None:
        if not isinstance(objectives, Objectives):
            objectives = Objectives(directions=objectives)
        _ = objectives.floor  # raises now if the dense return is missing, not after hours
        if (space is None) == (hyperparam_mutations is None):
            raise ConfigError("Give one of `space` and `hyperparam_mutations`, and not both.")
        self._space = Space.from_tune(hyperparam_mutations or {}) if space is None else space
        self._objectives = objectives
        super().__init__(
            time_attr=time_attr,
            metric=objectives.names[0],
            mode=objectives.directions[objectives.names[0]],
            perturbation_interval=perturbation_interval,
            burn_in_period=burn_in_period,
            quantile_fraction=quantile_fraction,
            resample_probability=resample_probability,
            perturbation_factors=perturbation_factors,
            # Ours explores; upstream wants to see one of the two.
            custom_explore_fn=custom_explore_fn or _same_config,
            log_config=log_config,
            require_attrs=require_attrs,
            synch=synch,
        )
        self._on_exploit = on_exploit
        self._rng = random.Random(seed)
        self._seen: set[str] = set()
        self._kept = KeptActors()
        self._restored = False

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Take a trial in: a new one, one that recovers, or one of a restored experiment."""
        recovered = self._trial_state.get(trial)
        super().on_trial_add(tune_controller, trial)
        state = self._trial_state[trial] = recovered or _State(trial)
        self._kept.forget(tune_controller, trial)
        missing = {
            k: self._space[k] for k in self._space if k not in self._space.read(trial.config)
        }
        if missing:
            drawn = {key: domain.sample(self._rng) for key, domain in missing.items()}
            trial.set_config(self._space.apply(trial.config, drawn))
            trial.evaluated_params.update(drawn)
        clock = _resume_clock(trial, self._time_attr)
        if recovered is not None:
            # It goes on from its newest checkpoint, which may lie before what it has reported.
            state.last_train_time = clock
        elif not trial.is_finished():
            if clock > 0:
                self._restored = True
                self._restore_state(state, trial, clock)
            # Those as well that have no checkpoint yet, and come last: others may wait for them.
            if self._restored:
                self._restore_round(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Decide what becomes of a trial that has reported; ``result`` is flat."""
        self._seen.update(key for key in self._objectives.keys if key in result)
        if self._time_attr not in result:
            raise ConfigError(
                f"`time_attr` {self._time_attr!r} isn't among the results."
                f"{did_you_mean(self._time_attr, result)}"
            )
        state, clock = self._trial_state[trial], result[self._time_attr]
        overdue = self._overdue(state, clock)
        if overdue < 0:
            return TrialScheduler.CONTINUE
        if not all(key in result for key in self._objectives.keys):
            self._check_objectives(result)
            if overdue < self._perturbation_interval:
                return TrialScheduler.CONTINUE
        self._save_trial_state(state, clock, result, trial)
        if self._synch:
            # The round is held once all are paused; see choose_trial_to_run.
            self._kept.keep(tune_controller, trial)
            return TrialScheduler.PAUSE
        state.last_perturbation_time = clock
        others_wait = any(
            self._kept.waits_for_slot(tune_controller, other)
            for other in tune_controller.get_trials()
        )
        worst, best = self._quantiles()
        self._checkpoint_or_exploit(trial, tune_controller, best, worst)
        if trial.status == Trial.PAUSED:
            return TrialScheduler.NOOP
        return TrialScheduler.PAUSE if others_wait else TrialScheduler.CONTINUE

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """Hold the synchronous round if all trials have come to it; then choose who goes on.

        Upstream chooses the one that is furthest behind, even while it is being handed an actor:
        clones are then reset one after the other, and the actors of the others stand idle. With
        hundreds of them one would wait until its donor has deleted what it is to be copied from.
        """
        if self._synch:
            live = [trial for trial in tune_controller.get_trials() if not trial.is_finished()]
            if live and all(self._at_round(trial) for trial in live):
                self._hold_round(tune_controller, live)
        self._kept.release(tune_controller)
        handed = controller_of(tune_controller)._resetting_trials
        waiting = [t for t in tune_controller.get_trials() if self._may_run(t) and t not in handed]
        return min(waiting, key=lambda t: self._trial_state[t].last_train_time, default=None)

    def _may_run(self, trial: Trial) -> bool:
        if trial.status not in (Trial.PENDING, Trial.PAUSED):
            return False
        clock = self._trial_state[trial].last_train_time
        return bool(not self._synch or clock < self._next_perturbation_sync)

    def _overdue(self, state: _State, clock: float) -> float:
        """Return how far a trial is past its next decision; negative before it."""
        if self._synch:
            return float(clock - self._next_perturbation_sync)
        due = max(self._burn_in_period, state.last_perturbation_time + self._perturbation_interval)
        return float(clock - due)

    def _check_objectives(self, result: Mapping[str, Any]) -> None:
        """Refuse an objective that no trial has ever reported: its name is wrong."""
        never = [key for key in self._objectives.keys if key not in self._seen]
        if never and self._require_attrs:
            raise ConfigError(
                f"The objective {never[0]!r} is in no result.{did_you_mean(never[0], result)} "
                "If it comes later than the first interval, give `require_attrs=False`."
            )

    def _save_trial_state(  # type: ignore[override]
        self, state: _State, time: float, result: dict[str, Any], trial: Trial
    ) -> float:
        del trial
        state.scores = {key: result.get(key) for key in self._objectives.keys}
        state.last_train_time = time
        # Lists, such as a trial's rows, are only weight in a driver that holds a thousand of these.
        state.last_result = {k: v for k, v in result.items() if not isinstance(v, list)}
        return self._set_last_score(state)

    def _set_last_score(self, state: _State) -> float:
        """Upstream logs this one, and compares by it no more."""
        scores = state.scores or {}
        known = self._objectives.measured(scores)
        state.last_score = self._objectives.vector(scores)[0] if known else math.nan
        return float(state.last_score)

    def _quantiles(self) -> tuple[list[Trial], list[Trial]]:
        """Return the worst and the best trials, of those whose scores are their own."""
        live = [(t, state.scores) for t, state in self._trial_state.items() if not t.is_finished()]
        scored = [(trial, scores) for trial, scores in live if scores is not None]
        best, worst = self._objectives.tails(
            [scores for _, scores in scored], self._quantile_fraction, population=len(live)
        )
        return [scored[index][0] for index in worst], [scored[index][0] for index in best]

    def _hold_round(self, tune_controller: Any, live: list[Trial]) -> None:
        """Decide on all trials at once; they are paused, with their checkpoints written."""
        worst, best = self._quantiles()
        now = max(self._trial_state[trial].last_train_time for trial in live)
        for trial in sorted(live, key=worst.__contains__):  # donors before those who copy them
            self._trial_state[trial].last_perturbation_time = now
            self._checkpoint_or_exploit(trial, tune_controller, best, worst)
        self._next_perturbation_sync = max(
            self._next_perturbation_sync + self._perturbation_interval,
            # A step longer than the interval must not make rounds pile up. Not `now` itself: a
            # trial that has just come to it would have nothing to do before the next round.
            math.nextafter(now, math.inf) if now > self._next_perturbation_sync else 0,
        )

    def _at_round(self, trial: Trial) -> bool:
        state = self._trial_state[trial]
        at_it = state.last_train_time >= self._next_perturbation_sync
        return bool(trial.status == Trial.PAUSED and at_it)

    def _checkpoint_or_exploit(
        self,
        trial: Trial,
        tune_controller: Any,
        upper_quantile: list[Trial],
        lower_quantile: list[Trial],
    ) -> None:
        """Copy from one of the best, or be checkpointed.

        Upstream checkpoints the best only; here all do that aren't replaced. Else a trial that
        rises because others fall would be a donor without a checkpoint, and one whose actor dies
        would begin anew.
        """
        if trial not in lower_quantile or not upper_quantile:
            super()._checkpoint_or_exploit(trial, tune_controller, [trial], [])
            return
        self._trial_state[trial].last_checkpoint = None
        donors = [donor for donor in upper_quantile if self._resolve_checkpoint(donor)]
        if not donors:
            _LOG.info("None of the best has a checkpoint yet: %s goes on as it is.", trial)
            return
        self._exploit(tune_controller, trial, self._rng.choice(donors))

    def _resolve_checkpoint(self, donor: Trial) -> bool:
        """Wait for the donor's checkpoint if it is being written; return whether there is one."""
        state = self._trial_state[donor]
        if isinstance(state.last_checkpoint, _FutureTrainingResult):
            written = state.last_checkpoint.resolve()
            state.last_checkpoint = written.checkpoint if written else None
            state.last_result = written.metrics if written else state.last_result
        return state.last_checkpoint is not None

    def _exploit(self, tune_controller: Any, trial: Trial, trial_to_clone: Trial) -> None:
        state, donor = self._trial_state[trial], self._trial_state[trial_to_clone]
        before = self._space.read(trial.config)
        self._kept.keep(tune_controller, trial)
        super()._exploit(tune_controller, trial, trial_to_clone)
        trial.run_metadata.invalidate_cache()
        controller_of(tune_controller)._mark_trial_to_checkpoint(trial)
        scores, state.scores = state.scores, None
        if self._on_exploit is not None:
            told = {
                "trial": trial.trial_id,
                "donor": trial_to_clone.trial_id,
                "clock": state.last_train_time,
                "changed": _changed(before, self._space.read(trial.config)),
                "scores": scores,
                "donor_scores": donor.scores,
                "result": _plain(state.last_result or {}),
                "time": wall_clock.time(),
            }
            self._on_exploit(told)

    def _get_new_config(
        self, trial: Trial, trial_to_clone: Trial
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        del trial
        donor = trial_to_clone.config
        values = self._space.perturb(
            self._space.read(donor),
            self._rng,
            resample=self._resample_probability,
            factors=self._perturbation_factors,
        )
        assert self._custom_explore_fn is not None
        return self._custom_explore_fn(self._space.apply(donor, values)), {}

    def _restore_state(self, state: _State, trial: Trial, clock: float) -> None:
        """Take score and clocks from what Tuner.restore left of a trial."""
        state.last_train_time = clock
        state.last_perturbation_time = clock - clock % self._perturbation_interval
        saved = trial.latest_checkpoint_result
        # A clone's checkpoint is its donor's until it writes one of its own.
        held = flatten_dict(saved.metrics) if saved is not None else {}
        if held.get("trial_id") != trial.trial_id:
            return
        if saved is not None and all(key in held for key in self._objectives.keys):
            state.scores = {key: held[key] for key in self._objectives.keys}
            state.last_checkpoint, state.last_result = saved.checkpoint, held
            self._seen.update(self._objectives.keys)
            self._set_last_score(state)

    def _restore_round(self, tune_controller: Any, trial: Trial) -> None:
        """Find the round that restored trials are at, and hold those back that wait for it.

        Rounds are an interval apart; the next is the first that the slowest hasn't come to.
        """
        live = [t for t in self._trial_state if not t.is_finished()]
        if not self._synch or any(t.status == Trial.RUNNING for t in live):
            return
        slowest = min(self._trial_state[t].last_train_time for t in live)
        first = max(self._perturbation_interval, self._burn_in_period)
        passed = math.floor((slowest - first) / self._perturbation_interval) + 1
        self._next_perturbation_sync = first + max(passed, 0) * self._perturbation_interval
        for other in live:
            if (
                other.status == Trial.PENDING
                and self._trial_state[other].scores is not None
                and self._trial_state[other].last_train_time >= self._next_perturbation_sync
            ):
                # Tune starts whatever is pending; what is paused starts when it is chosen. The
                # trial that is being added isn't in Tune's books yet.
                if other is trial:
                    other.set_status(Trial.PAUSED)
                else:
                    tune_controller._set_trial_status(other, Trial.PAUSED)


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, list[Any]]:
    return {
        key: [before.get(key), value]
        for key, value in after.items()
        if key not in before or before[key] != value
    }


def _plain(result: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in result.items() if isinstance(v, (str, int, float, type(None)))}


def _same_config(config: dict[str, Any]) -> dict[str, Any]:
    return config


def _resume_clock(trial: Trial, time_attr: str) -> float:
    """Return where a trial goes on from: the time of its newest checkpoint, 0 without one."""
    saved = trial.latest_checkpoint_result
    if saved is None:
        return 0.0
    return float(flatten_dict(saved.metrics).get(time_attr, 0.0))
