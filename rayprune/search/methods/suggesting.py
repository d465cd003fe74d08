"""Methods that choose each trial's values by how earlier ones ended: Optuna's samplers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from rayprune.extras import lacking, needs
from rayprune.search.methods.base import SearchFields, SearchMethod, SearchTask
from rayprune.search.space import Space

if TYPE_CHECKING:
    from ray.tune.schedulers import TrialScheduler
    from ray.tune.search import Searcher

_AT_RANDOM: Final = 10
"""Trials that TPE begins with, at most; a quarter of a smaller population."""


class _OptunaMethod(SearchMethod):
    """What Optuna's samplers have in common."""

    def faults(self, name: str, fields: SearchFields, space: Space) -> Iterator[str]:
        """Optuna is an extra."""
        yield from super().faults(name, fields, space)
        if lacking("optuna"):
            yield f"{needs(f'`search.method: {name}`', 'optuna')}, or use `mo_asha`."

    def drawn(self, space: Space) -> dict[str, Any]:
        """Return nothing: Tune draws no value itself."""
        del space
        return {}

    def searcher(self, task: SearchTask) -> Searcher:
        """Return Tune's searcher around Optuna's sampler."""
        from rayprune.search.schedulers.optuna_study import OptunaStudy

        return OptunaStudy(
            space=task.space,
            objectives=task.objectives,
            sampler=self.sampler(task),
            at_once=task.at_once,
        )

    def scheduler(self, task: SearchTask) -> TrialScheduler:
        """Return one that lets all trials end, and tells the study which trials there are."""
        del task
        from rayprune.search.schedulers.optuna_study import StudiedTrials

        return StudiedTrials()  # type: ignore[no-untyped-call]

    def sampler(self, task: SearchTask) -> Any:
        """Return Optuna's sampler, seeded."""
        raise NotImplementedError


class NSGA2Method(_OptunaMethod):
    """``nsga2``: Deb et al. 2002 (doi:10.1109/4235.996017), as Optuna has it."""

    line = "Optuna's NSGA-II: generations of trials, bred from those on the front so far"
    options = frozenset({"generation"})

    def faults(self, name: str, fields: SearchFields, space: Space) -> Iterator[str]:
        """One generation alone is drawn at random."""
        yield from super().faults(name, fields, space)
        size = generation_of(fields)
        if not 2 <= size < fields.population:
            yield (
                f"`search.generation` must be at least 2 and less than `search.population` "
                f"({fields.population}), but is {size}: the first generation is drawn at random, "
                "and only later ones are bred. Raise `search.population`, or use `random`."
            )

    def sampler(self, task: SearchTask) -> Any:
        """Return ``NSGAIISampler``."""
        import optuna

        return optuna.samplers.NSGAIISampler(
            population_size=generation_of(task.fields), seed=task.seed
        )


class TPEMethod(_OptunaMethod):
    """``tpe``: Watanabe 2023 (arXiv:2304.11127), as Optuna has it, for several objectives too."""

    line = "Optuna's TPE: tree-structured Parzen estimators of where good values lie"

    def sampler(self, task: SearchTask) -> Any:
        """Return ``TPESampler``."""
        import optuna

        at_random = min(_AT_RANDOM, max(2, task.fields.population // 4))
        return optuna.samplers.TPESampler(n_startup_trials=at_random, seed=task.seed)


def generation_of(fields: SearchFields) -> int:
    """Return the trials of one generation: as many as there are generations, if none is given."""
    return fields.generation or max(2, math.isqrt(fields.population))
