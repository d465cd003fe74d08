"""Population search: Pareto fronts, objectives, search spaces, schedulers for Ray Tune."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rayprune.lazy import lazy_names

if TYPE_CHECKING:
    from rayprune.search.domains import domains_in
    from rayprune.search.objectives import Objectives
    from rayprune.search.schedulers.mo_asha import MultiObjectiveASHA
    from rayprune.search.schedulers.mo_pbt import MultiObjectivePBT
    from rayprune.search.schedulers.pbt import PopulationPBT
    from rayprune.search.space import Space

__all__ = [
    "MultiObjectiveASHA",
    "MultiObjectivePBT",
    "Objectives",
    "PopulationPBT",
    "Space",
    "domains_in",
]

# Fetched at first use: the schedulers import ray.tune, which the rest has no need of.
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "MultiObjectiveASHA": "schedulers.mo_asha",
        "MultiObjectivePBT": "schedulers.mo_pbt",
        "Objectives": "objectives",
        "PopulationPBT": "schedulers.pbt",
        "Space": "space",
        "domains_in": "domains",
    },
)
