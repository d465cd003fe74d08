"""Methods that stop the worse trials early: asynchronous successive halving."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rayprune.search.methods.base import SearchMethod, SearchTask

if TYPE_CHECKING:
    from ray.tune.schedulers import TrialScheduler

REDUCTION_FACTOR: Final = 4


class MultiObjectiveASHAMethod(SearchMethod):
    """``mo_asha``."""

    line = "multi-objective asynchronous successive halving; stops early what no front needs"
    options = frozenset({"reduction_factor"})

    def scheduler(self, task: SearchTask) -> TrialScheduler:
        """Return `MultiObjectiveASHA`, with its first rung at the first result."""
        from rayprune.search.schedulers.mo_asha import MultiObjectiveASHA

        return MultiObjectiveASHA(
            objectives=task.objectives,
            max_t=task.env_steps,
            grace_period=task.interval,
            reduction_factor=task.fields.reduction_factor or REDUCTION_FACTOR,
            time_attr="env_steps",
        )


class ASHAMethod(MultiObjectiveASHAMethod):
    """``asha``."""

    line = "asynchronous successive halving on the first objective; stops the worse early"
    one_objective = True
