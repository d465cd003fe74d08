"""Pruning for deep-RL policies on Ray; this part is pure torch and never imports ray."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rayprune.errors import RaypruneError
from rayprune.lazy import lazy_names

if TYPE_CHECKING:
    from rayprune.deploy.compaction.compact import compact
    from rayprune.pruning.config import PruningConfig
    from rayprune.pruning.criteria import register_criterion
    from rayprune.pruning.distributions import register_distribution
    from rayprune.pruning.granularity import register_granularity
    from rayprune.pruning.layers.attach import make_maskable, unmask
    from rayprune.pruning.pruner import Pruner
    from rayprune.pruning.quantisation.config import QuantisationConfig
    from rayprune.pruning.quantisation.quantiser import Quantiser
    from rayprune.pruning.schedules import register_schedule
    from rayprune.pruning.update.reconstruction import Calibration

__all__ = [
    "Calibration",
    "Pruner",
    "PruningConfig",
    "QuantisationConfig",
    "Quantiser",
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
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Calibration": "pruning.update.reconstruction",
        "Pruner": "pruning.pruner",
        "PruningConfig": "pruning.config",
        "QuantisationConfig": "pruning.quantisation.config",
        "Quantiser": "pruning.quantisation.quantiser",
        "compact": "deploy.compaction.compact",
        "make_maskable": "pruning.layers.attach",
        "register_criterion": "pruning.criteria",
        "register_distribution": "pruning.distributions",
        "register_granularity": "pruning.granularity",
        "register_schedule": "pruning.schedules",
        "unmask": "pruning.layers.attach",
    },
)
