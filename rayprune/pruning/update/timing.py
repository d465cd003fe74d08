"""When a mask update is due, and what it aims at; by arithmetic, from config and progress."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rayprune.pruning.config import PruningConfig
from rayprune.pruning.reports import ScheduleProgress
from rayprune.pruning.schedules.sparse_training.sparse_from_start import GRADIENT, SparseSchedule
from rayprune.pruning.update.budgets import Ramp
from rayprune.pruning.update.phases import Phase

# Thresholds ramp by the share that a schedule has reached of this sparsity; a power of two, so
# that dividing by it rounds nothing.
REFERENCE_SPARSITY = 0.5


@dataclass(frozen=True, slots=True)
class Timing:
    """The schedule of one Pruner at this moment."""

    config: PruningConfig
    phases: Sequence[Phase]
    progress: ScheduleProgress
    goes_on: bool
    """Whether the last mask update left something to do: weights fade, or were held back."""

    @property
    def sparse_schedule(self) -> SparseSchedule | None:
        """The schedule, if it is sparse from the start."""
        schedule = self.config.build_schedule(REFERENCE_SPARSITY)
        return schedule if isinstance(schedule, SparseSchedule) else None

    @property
    def is_of_arithmetic(self) -> bool:
        """Whether nothing else is asked when an update is due: a user's schedule may read files."""
        return type(self.config.build_schedule(0.0)).__module__.startswith("rayprune.")

    def tick(self, clock: float) -> float | None:
        """Return the moment of the last mask update up to the clock; None before the first."""
        schedule, every = self.config.build_schedule(0.0), self.config.every
        if clock < schedule.begin:
            # What is sparse from the start has its target at all times.
            return 0.0 if isinstance(schedule, SparseSchedule) else None
        if clock < schedule.end:
            return schedule.begin + every * math.floor((clock - schedule.begin) / every)
        # What fades, or was held back, needs more updates; otherwise the last is at the end.
        late = math.floor((clock - schedule.end) / every) if self.goes_on else 0
        return schedule.end + every * late

    def is_due(self, tick: float) -> bool:
        """Return whether the mask update of a tick is still to be done, or a target has changed."""
        done = self.progress
        if done.tick is None or tick > done.tick:
            return True
        targets = self.targets(tick)
        held = {field: done.targets.get(field, 0.0) for field in targets}
        if self.config.on_clone == "regrow" and targets != held:
            return True
        return any(target > held[field] for field, target in targets.items())

    def targets(self, tick: float) -> dict[str, float]:
        """Return every target that is due at a tick, by the config's field."""
        config, at = self.config, self.ramp(tick)
        if config.threshold is not None:
            share = self.share(tick)
            return {f"pruning.threshold.{k}": v * share for k, v in config.threshold.items()}
        budgets = [budget for phase in self.phases for budget in phase.budgets]
        targets = {budget.field: at(budget.target or 0.0) for budget in budgets}
        if not isinstance(config.distribution, str):
            listed = config.distribution.items()
            targets |= {f"pruning.distribution.{name}": at(final) for name, final in listed}
        return targets

    def ramp(self, tick: float) -> Ramp:
        """Return what turns a target into the sparsity that is due at a tick."""
        return lambda target: self.config.build_schedule(target).sparsity_at(tick)

    def share(self, tick: float) -> float:
        """Return how much of a threshold is due at a tick."""
        return self.ramp(tick)(REFERENCE_SPARSITY) / REFERENCE_SPARSITY

    def growth_limit(self, tick: float) -> Ramp:
        """Return what turns a target into the sparsity that weights may grow to at a tick.

        That is a ramp's end: what it would soon take again needn't grow.
        """
        return self.ramp(tick) if self.sparse_schedule is not None else lambda target: target

    def awaits_growth(self, clock: float, per_minibatch: float) -> bool:
        """Return whether weights will grow by their dense gradients; see `Pruner`."""
        schedule = self.sparse_schedule
        if self.config.on_clone == "regrow" and self.is_due(self.tick(clock) or 0.0):
            return schedule is None or schedule.regrows_by in (None, GRADIENT)
        if schedule is None or schedule.regrows_by != GRADIENT:
            return False
        upcoming = self._upcoming(clock)
        soon = upcoming <= clock + schedule.window * per_minibatch
        return soon and schedule.grows_at(upcoming)

    def _upcoming(self, clock: float) -> float:
        """Return the moment of the first mask update that is still to be done."""
        schedule, tick = self.config.build_schedule(REFERENCE_SPARSITY), self.tick(clock)
        if clock < schedule.begin or tick is None:
            return schedule.begin
        if self.progress.tick is None or tick > self.progress.tick:
            return tick
        return max(tick, min(tick + self.config.every, schedule.end))
