"""What a driver decides and the Learners do: when pruning begins, and how far a gate is open."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray.rllib.algorithms.algorithm import Algorithm

from rayprune.pruning.config import PruningConfig
from rayprune.pruning.schedules.times import BEGAN, waits_for_return
from rayprune.rllib.actors.learners import foreach_learner
from rayprune.rllib.learner import ranks
from rayprune.rllib.learner.extension import Extension, LearnerView
from rayprune.rllib.settings.keys import CRITERION, LEVEL


class Signals(Extension):
    """A driver's signals: posted between a Learner's updates, taken in by its own next one.

    A signal becomes part of the pruning config, as if it had been written there: ``began`` and
    ``level`` in the schedule, ``criterion`` in place of the config's. A synchronous group of
    Learners gets them between two updates. An asynchronous one gets them at any time, one rank
    before the other, and takes in what has reached every rank.
    """

    key = "signals"

    def __init__(self, view: LearnerView) -> None:
        super().__init__(view)
        self._waiting: list[dict[str, Any]] = []
        self._taken = 0
        self.now: dict[str, Any] = {}
        """The signals in force."""

    @property
    def posted(self) -> int:
        """How many posts there have been."""
        return self._taken + len(self._waiting)

    def post(self, signals: Mapping[str, Any]) -> None:
        """Leave signals for the next update."""
        self._waiting.append(dict(signals))

    def before_masks(self) -> None:
        """Put in force the posts that every Learner of the group has."""
        if any(listens(pruner.config) for pruner in self._view.pruners.values()):
            self.take(ranks.earliest(self.posted, self._view.learner))

    def take(self, until: int) -> None:
        """Put in force the first ``until`` posts."""
        count = until - self._taken
        due, self._waiting = self._waiting[:count], self._waiting[count:]
        self.now = _merged(self.now, due)
        self._taken += len(due)

    def applied(self, pruning: Mapping[str, Any]) -> dict[str, Any]:
        """Return a plain pruning dict with the signals in force written into it."""
        inner = {key: self.now[key] for key in (BEGAN, LEVEL) if key in self.now}
        outer = {key: self.now[key] for key in (CRITERION,) if key in self.now}
        if not inner and not outer:
            return dict(pruning)
        return {**pruning, **outer, "schedule": {**pruning.get("schedule", {}), **inner}}

    def get_state(self) -> dict[str, Any]:
        """Return what is in force once everything posted is taken in."""
        return _merged(self.now, self._waiting)

    def set_state(self, state: Mapping[str, Any] | None) -> None:
        """Take over what `get_state` returned."""
        self._waiting, self._taken, self.now = [], 0, dict(state or {})


def listens(pruning: PruningConfig) -> bool:
    """Whether anything is ever posted to the Learners of such a config."""
    return pruning.gated or waits_for_return(pruning.schedule)


def post(algorithm: Algorithm, signals: Mapping[str, Any]) -> None:
    """Post signals to every Learner; each puts them in force at its next update."""
    held = dict(signals)
    foreach_learner(algorithm, lambda learner: learner.extension(Signals).post(held))


def begin_if_reached(
    algorithm: Algorithm, schedule: Mapping[str, Any], value: float | None, clock: int
) -> None:
    """Let a schedule begin that waits for a return, if ``value`` has reached it.

    Args:
        algorithm: between two iterations.
        schedule: the pruning config's, as the user gave it.
        value: the return; None where there was none.
        clock: now; the first one posted counts.
    """
    begin = schedule.get("begin")
    if isinstance(begin, Mapping) and value is not None and value >= begin["return"]:
        post(algorithm, {BEGAN: clock})


def _merged(now: Mapping[str, Any], posts: list[dict[str, Any]]) -> dict[str, Any]:
    merged = dict(now)
    for signals in posts:
        # What has begun stays begun.
        merged = {**merged, **signals, **{k: v for k, v in merged.items() if k == BEGAN}}
    return merged
