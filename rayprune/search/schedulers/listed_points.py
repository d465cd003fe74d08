"""Trials whose values are given, one after the other, as a searcher of Ray Tune's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from rayprune.search.schedulers.kept_actors import controller_of
from rayprune.search.space import Space


class ListedPoints(Searcher):
    """Hands out each point once, in their order.

    Which points have a trial already is known by the trials, so that nothing has to be kept that
    could disagree with them after a driver was killed.

    Args:
        space: whose keys the points have.
        points: dotted key -> value, a trial each; no two are the same.
    """

    def __init__(self, *, space: Space, points: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(metric=None, mode=None)
        self._space, self._points = space, [dict(point) for point in points]
        self._given: set[int] = set()

    def suggest(self, trial_id: str) -> Any:
        """Return the next point, nested; at the end Tune's word for it."""
        del trial_id
        for place, point in enumerate(self._points):
            if place not in self._given:
                self._given.add(place)
                return self._space.apply({}, point)
        return Searcher.FINISHED

    def add(self, config: Mapping[str, Any]) -> None:
        """Hear of a trial of Tune's: its point is given."""
        values = self._space.read(config)
        self._given.update(n for n, point in enumerate(self._points) if point == values)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Do nothing: how a trial ends changes no other."""

    def save(self, checkpoint_path: str) -> None:
        """Write nothing: the trials tell."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """Begin anew; `add` tells next which trials there are."""
        del checkpoint_path
        self._given = set()


class ListedTrials(FIFOScheduler):
    """Lets all trials end; tells the searcher of each, after a restore as well."""

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Tell of the trial, and tell Tune's counter how many there are."""
        controller = controller_of(tune_controller)
        generator = controller._search_alg
        generator.searcher.add(trial.config)
        # Of the samples that Tune still has to ask for; a killed driver may leave it off by one.
        generator._counter = len(controller.get_trials())
