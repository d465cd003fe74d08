"""Population search: Pareto fronts, objectives, search spaces, schedulers for Ray Tune."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rayprune.search.domains import domains_in
    from rayprune.search.objectives import Objectives
    from rayprune.search.schedulers.mo_pbt import MultiObjectivePBT
    from rayprune.search.schedulers.pbt import PopulationPBT
    from rayprune.search.space import Space

__all__ = ["MultiObjectivePBT", "Objectives", "PopulationPBT", "Space", "domains_in"]

# Fetched at first use: the schedulers import ray.tune, which the rest has no need of.
_HOMES = {
    "MultiObjectivePBT": "schedulers.mo_pbt",
    "Objectives": "objectives",
    "PopulationPBT": "schedulers.pbt",
    "Space": "space",
    "domains_in": "domains",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"rayprune.search.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
