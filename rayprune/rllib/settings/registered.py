"""Carries what a user registered (criteria, schedules ...) to Learners in other processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from rayprune.algorithms import ALGORITHMS
from rayprune.pruning.blocks.groups import own_blocks
from rayprune.pruning.criteria import CRITERIA, register_criterion
from rayprune.pruning.distributions import DISTRIBUTIONS, register_distribution
from rayprune.pruning.granularity import GRANULARITIES, register_granularity
from rayprune.pruning.penalties import PENALTIES, register_penalty
from rayprune.pruning.remedies import REMEDIES, register_remedy
from rayprune.pruning.schedules import SCHEDULES, register_schedule

_REGISTRIES: Final[Mapping[str, tuple[Mapping[str, Any], Callable[[str, Any], Any]]]] = {
    "algorithm": (ALGORITHMS, ALGORITHMS.add),
    "criterion": (CRITERIA, register_criterion),
    "distribution": (DISTRIBUTIONS, register_distribution),
    "granularity": (GRANULARITIES, register_granularity),
    "penalty": (PENALTIES, register_penalty),
    "remedy": (REMEDIES, register_remedy),
    "schedule": (SCHEDULES, register_schedule),
}


def own_parts(pruning: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what a run may need that the user registered, ``{kind: {name: object}}``.

    Registries are filled where the user's script runs. Remote Learners are told by their config.
    """
    blocks = [pruning, *own_blocks(pruning.get("groups")).values()]
    schedules = [block.get("schedule") or {} for block in blocks]
    tried = [name for schedule in schedules for name in schedule.get("criteria") or ()]
    named: dict[str, list[Any]] = {
        "criterion": [*(block.get("criterion") for block in blocks), *tried],
        "distribution": [block.get("distribution") for block in blocks],
        "granularity": [block.get("granularity") for block in blocks],
        "penalty": [(block.get("penalty") or {}).get("kind") for block in blocks],
        "remedy": list(pruning.get("remedies") or ()),
        "schedule": [schedule.get("kind") for schedule in schedules],
    }
    found: dict[str, dict[str, Any]] = {}
    # Whichever the config is of: others may have been derived from it.
    algorithms = {name: known for name, known in ALGORITHMS.items() if not known.built_in}
    if algorithms:
        found["algorithm"] = algorithms
    for kind, (registry, _) in _REGISTRIES.items():
        for name in named.get(kind, ()):
            entry = registry.get(name) if isinstance(name, str) else None
            if entry is not None and not entry.__module__.startswith("rayprune."):
                found.setdefault(kind, {})[name] = entry
    return found


def register_missing(parts: Mapping[str, Mapping[str, Any]]) -> None:
    """Register in this process what `own_parts` found in another, where it is missing."""
    for kind, entries in parts.items():
        registry, register = _REGISTRIES[kind]
        for name, entry in entries.items():
            if name not in registry:
                register(name, entry)
