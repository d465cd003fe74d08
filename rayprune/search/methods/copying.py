"""Methods whose trials copy from better ones: population-based training, and its bandits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from rayprune.extras import lacking, needs
from rayprune.search.domains import Range
from rayprune.search.methods.base import SearchFields, SearchMethod, SearchTask
from rayprune.search.space import Space

if TYPE_CHECKING:
    from ray.tune.schedulers import TrialScheduler


class MultiObjectivePBTMethod(SearchMethod):
    """``mo_pbt``."""

    line = "multi-objective population-based training: spreads along the Pareto front"
    copies = True

    def scheduler(self, task: SearchTask) -> TrialScheduler:
        """Return `MultiObjectivePBT`."""
        from rayprune.search.schedulers.mo_pbt import MultiObjectivePBT

        return MultiObjectivePBT(**_options(task))


class PBTMethod(SearchMethod):
    """``pbt``."""

    line = "population-based training on the first objective, or under the constraint"
    one_objective = copies = True

    def scheduler(self, task: SearchTask) -> TrialScheduler:
        """Return `PopulationPBT`."""
        from rayprune.search.schedulers.pbt import PopulationPBT

        return PopulationPBT(**_options(task))


class PB2Method(SearchMethod):
    """``pb2``."""

    line = "population-based bandits: as pbt, with a Gaussian process in place of chance"
    one_objective: ClassVar[bool] = True
    copies: ClassVar[bool] = True
    constrained = False
    tells_copies = False

    def faults(self, name: str, fields: SearchFields, space: Space) -> Iterator[str]:
        """A Gaussian process needs scikit-learn, and real numbers."""
        yield from super().faults(name, fields, space)
        if not any(isinstance(d, Range) and not d.whole for d in space.values()):
            yield "`search.space` must have a range of real numbers for `pb2`. Use `pbt`."
        if lacking("pb2"):
            yield f"{needs('`search.method: pb2`', 'pb2')}, or use `pbt`."

    def scheduler(self, task: SearchTask) -> TrialScheduler:
        """Return Tune's own PB2."""
        from rayprune.search.schedulers.pb2 import make_pb2

        first = task.objectives.names[0]
        return make_pb2(
            metric=first,
            mode=task.objectives.directions[first],
            space=task.space,
            interval=task.interval,
            synch=task.synch,
        )


def _options(task: SearchTask) -> dict[str, Any]:
    return {
        "objectives": task.objectives,
        "space": task.space,
        "time_attr": "env_steps",
        "perturbation_interval": task.interval,
        "synch": task.synch,
        "on_exploit": task.on_exploit,
        "seed": task.seed,
    }
