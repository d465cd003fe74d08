"""Optuna's samplers as a searcher of Ray Tune's, on a sweep's space and under its constraints.

Tune's own `OptunaSearch` (Ray 2.60) is what this is built on. Added are values of any kind, such as
mappings; constraints; and a study that agrees with Tune's trials after a driver was killed: the two
are written one after the other, so that one may know of a trial that the other has not heard of.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search.optuna import OptunaSearch
from ray.tune.utils import flatten_dict

from rayprune.errors import ConfigError
from rayprune.search.domains import Choices, Domain, Range
from rayprune.search.objectives import Objectives
from rayprune.search.schedulers.kept_actors import controller_of
from rayprune.search.space import Space

_TRIES: Final = 100
"""Suggestions that are passed over because their result is known."""
_PLAIN: Final = (bool, int, float, str)
"""Kinds of values that Optuna takes as choices; the others are named by their place."""


class OptunaStudy(OptunaSearch):
    """Suggests a trial's values by how the earlier ones ended.

    A trial counts by its last result. One that failed, or in which an objective is no finite
    number, is told as failed, and breeds none. Samplers that breed suggest the same values again
    and again; as the seed is the same too, the study is then told what is known, and nothing is
    trained twice.

    Args:
        space: of ranges and choices.
        objectives: what a trial's last result is judged by, constraints included.
        sampler: Optuna's, seeded.
        at_once: trials that run side by side: no further one is asked for before it has a place.

    Raises:
        ConfigError: a domain has no bounds, or the dense return isn't known.
    """

    def __init__(self, *, space: Space, objectives: Objectives, sampler: Any, at_once: int) -> None:
        _ = objectives.floor
        # It tells of each trial on standard error.
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._domains, self._objectives = space, objectives
        self._at_once = at_once
        self._living: set[str] = set()
        self._results: dict[str, Mapping[str, float] | None] = {}
        self._agreed = True
        super().__init__(
            space={key: distribution_of(key, domain) for key, domain in space.items()},
            metric=list(objectives.names),
            mode=list(objectives.directions.values()),
            sampler=sampler,
        )

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """Return a new trial's values, nested; None while all places are taken."""
        if len(self._living) >= self._at_once:
            return None
        self._agree()
        asked = self._ask()
        for _ in range(_TRIES):
            if _identity(asked) not in self._results:
                break
            self._tell(asked, self._results[_identity(asked)])
            asked = self._ask()
        self._enter(trial_id, asked)
        values = {key: _decoded(self._domains[key], v) for key, v in asked.params.items()}
        return self._domains.apply({}, values)

    def add(self, trial_id: str, config: Mapping[str, Any]) -> None:
        """Hear of a trial of Tune's that is to run; one that the study doesn't know is entered.

        Args:
            trial_id: the trial's.
            config: its config, with the space's values.
        """
        self._living.add(trial_id)
        if trial_id not in self._ot_trials:
            values = self._domains.read(config)
            self._study.enqueue_trial(
                {key: _encoded(self._domains[key], value) for key, value in values.items()}
            )
            self._enter(trial_id, self._ask())

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Do nothing: only ends count."""

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell the study how a trial has ended."""
        self._living.discard(trial_id)
        asked = self._ot_trials.pop(trial_id, None)
        if asked is None:
            return
        known = None
        if result is not None and not error and self._objectives.measured(result):
            known = {key: float(result[key]) for key in self._objectives.keys}
        self._results[_identity(asked)] = known
        self._tell(asked, known)

    def _tell(self, asked: Any, result: Mapping[str, float] | None) -> None:
        """Tell the study of a measured result; of a failure if there is none."""
        if result is None:
            self._study.tell(asked, state=TrialState.FAIL)
            return
        for limit in self._objectives.limits:
            asked.set_constraint(limit.text, limit.violation(result))
        self._study.tell(asked, [result[name] for name in self._objectives.names])

    def restore(self, checkpoint_path: str) -> None:
        """Take up the study of an earlier driver; `add` tells next which trials there are."""
        super().restore(checkpoint_path)
        self._living, self._agreed = set(), False

    @property
    def _study(self) -> Any:
        return self._ot_study

    def _ask(self) -> Any:
        return self._study.ask(fixed_distributions=self._space)

    def _enter(self, trial_id: str, asked: Any) -> None:
        self._ot_trials[trial_id] = asked
        self._results.setdefault(_identity(asked), None)

    def _agree(self) -> None:
        """Give up what was asked for before a restore, and never became a trial of Tune's."""
        lost = [] if self._agreed else sorted(set(self._ot_trials) - self._living)
        for trial_id in lost:
            asked = self._ot_trials.pop(trial_id)
            self._results.pop(_identity(asked), None)
            self._tell(asked, None)
        self._agreed = True


def _identity(asked: Any) -> str:
    """Return what tells a trial's values from others."""
    return json.dumps(asked.params, sort_keys=True)


class StudiedTrials(FIFOScheduler):
    """Lets all trials end; keeps study and trials in agreement, after a restore as well."""

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Tell the study of the trial, and Tune's counter how many there are."""
        controller = controller_of(tune_controller)
        generator = controller._search_alg
        study = generator.searcher
        if trial.is_finished():
            # It may have ended after the study was written.
            failed = trial.status == Trial.ERROR
            study.on_trial_complete(trial.trial_id, flatten_dict(trial.last_result), failed)
        else:
            study.add(trial.trial_id, trial.config)
        # Of the samples that Tune still has to ask for; a killed driver may leave it off by one.
        generator._counter = len(controller.get_trials())


def distribution_of(key: str, domain: Domain) -> BaseDistribution:
    """Return Optuna's distribution for a domain of the space.

    Raises:
        ConfigError: the domain is a function, of which Optuna could learn nothing.
    """
    if isinstance(domain, Choices):
        return CategoricalDistribution(_names(domain))
    if not isinstance(domain, Range):
        raise ConfigError(f"`{key}` must be a range or a choice for Optuna. Use `random`.")
    low, high = domain.probes()
    if domain.whole:
        step = 1 if domain.log else int(domain.step or 1)
        return IntDistribution(int(low), int(high), log=domain.log, step=step)
    # Optuna has no steps on a log scale: the nearest multiple is taken.
    return FloatDistribution(low, high, log=domain.log, step=None if domain.log else domain.step)


def _names(domain: Choices) -> tuple[Any, ...]:
    """Return the choices as Optuna can hold them: themselves, or their places where any can't."""
    plain = all(value is None or isinstance(value, _PLAIN) for value in domain.values)
    return domain.values if plain else tuple(range(len(domain.values)))


def _decoded(domain: Domain, name: Any) -> Any:
    if isinstance(domain, Range):
        return domain.nearest(name)
    assert isinstance(domain, Choices)
    return domain.probes()[_place(_names(domain), name)]


def _encoded(domain: Domain, value: Any) -> Any:
    if isinstance(domain, Range):
        return value
    assert isinstance(domain, Choices)
    return _names(domain)[_place(domain.values, value)]


def _place(values: tuple[Any, ...], value: Any) -> int:
    """Return where a value is; YAML's 1 isn't true."""
    kinds = [(isinstance(other, bool), other) for other in values]
    return kinds.index((isinstance(value, bool), value))
