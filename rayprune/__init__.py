"""Pruning for deep-RL policies on Ray; this part is pure torch and never imports ray."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from rayprune.errors import RaypruneError

if TYPE_CHECKING:
    from rayprune.deploy.compaction.compact import compact
    from rayprune.pruning.config import PruningConfig
    from rayprune.pruning.criteria import register_criterion
    from rayprune.pruning.distributions import register_distribution
    from rayprune.pruning.granularity import register_granularity
    from rayprune.pruning.layers.attach import make_maskable, unmask
    from rayprune.pruning.pruner import Pruner
    from rayprune.pruning.schedules import register_schedule

__all__ = [
    "Pruner",
    "PruningConfig",
    "RaypruneError",
    "compact",
    "make_maskable",
    "register_criterion",
    "register_distribution",
    "register_granularity",
    "register_schedule",
    "unmask",
]

# Fetched at first use: importing torch takes seconds, and `rayprune --help` needs none of it.
_HOMES = {
    "Pruner": "pruning.pruner",
    "PruningConfig": "pruning.config",
    "compact": "deploy.compaction.compact",
    "make_maskable": "pruning.layers.attach",
    "register_criterion": "pruning.criteria",
    "register_distribution": "pruning.distributions",
    "register_granularity": "pruning.granularity",
    "register_schedule": "pruning.schedules",
    "unmask": "pruning.layers.attach",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"rayprune.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
