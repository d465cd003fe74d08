"""Schedules: when how much is pruned; one file per kind, and the registry of all.

Gradual pruning (``linear``, ``cubic``, ``exponential``), one-shot, iterative, lottery tickets, what
a driver gates by the return, networks that compete by their loss, and what is sparse from the
start: pruning at initialisation (``at_init``), static masks and dynamic sparse training (``set``,
``rigl``), or growth, all at once (``revive``) or bit by bit (``grow``).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from rayprune.errors import ConfigError
from rayprune.pruning.checks import Faults, choice_fault, must, unknown_keys
from rayprune.pruning.registry import Registry
from rayprune.pruning.schedules.adaptive import AdaptiveSchedule
from rayprune.pruning.schedules.at_init import AtInitSchedule
from rayprune.pruning.schedules.base import DEFAULT_KIND, Schedule, Span
from rayprune.pruning.schedules.cubic import CubicSchedule
from rayprune.pruning.schedules.exponential import ExponentialSchedule
from rayprune.pruning.schedules.gated import GatedSchedule
from rayprune.pruning.schedules.iterative import IterativeSchedule
from rayprune.pruning.schedules.linear import LinearSchedule
from rayprune.pruning.schedules.lottery import LotterySchedule
from rayprune.pruning.schedules.one_shot import OneShotSchedule
from rayprune.pruning.schedules.sparse_training.grow import GrowSchedule
from rayprune.pruning.schedules.sparse_training.revive import ReviveSchedule
from rayprune.pruning.schedules.sparse_training.rigl import RiglSchedule
from rayprune.pruning.schedules.sparse_training.set_ import SetSchedule
from rayprune.pruning.schedules.sparse_training.static import StaticSchedule

__all__ = [
    "SCHEDULES",
    "AdaptiveSchedule",
    "AtInitSchedule",
    "CubicSchedule",
    "ExponentialSchedule",
    "GatedSchedule",
    "GrowSchedule",
    "IterativeSchedule",
    "LinearSchedule",
    "LotterySchedule",
    "OneShotSchedule",
    "ReviveSchedule",
    "RiglSchedule",
    "Schedule",
    "SetSchedule",
    "Span",
    "StaticSchedule",
    "complete",
    "fields_of",
    "register_schedule",
    "schedule_faults",
    "schedule_of",
]

_REGISTRY: Registry[type[Any]] = Registry(
    "schedule",
    {
        "one_shot": OneShotSchedule,
        "linear": LinearSchedule,
        "cubic": CubicSchedule,
        "exponential": ExponentialSchedule,
        "iterative": IterativeSchedule,
        "lottery": LotterySchedule,
        "gated": GatedSchedule,
        "adaptive": AdaptiveSchedule,
        "at_init": AtInitSchedule,
        "static": StaticSchedule,
        "revive": ReviveSchedule,
        "set": SetSchedule,
        "rigl": RiglSchedule,
        "grow": GrowSchedule,
    },
)
SCHEDULES: Mapping[str, type[Any]] = _REGISTRY


def register_schedule(name: str, schedule: type[Any]) -> None:
    """Make a schedule known by name to `PruningConfig` and the YAML.

    A subclass of a built-in kind is checked as that kind is. Any other class is checked as one
    that runs from ``begin`` to ``end``; derive it from `Span` or `Schedule` for rules of its own.

    Args:
        name: a new name.
        schedule: a dataclass with the method ``sparsity_at``, the field ``final`` and fields or
            properties ``begin`` and ``end`` (in steps); what other fields it has can be set in
            the config's ``schedule``.

    Raises:
        ConfigError: the name is taken, or something of that is missing.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Steep(LinearSchedule):
    ...     power: float = 2.0
    ...     def sparsity_at(self, step: float) -> float:
    ...         return self.final if step >= self.end else 0.0
    >>> register_schedule("steep", Steep)
    """
    fields = set(getattr(schedule, "__dataclass_fields__", ()))
    missing = {"final", "begin", "end", "sparsity_at"} - fields - set(dir(schedule))
    if missing or "final" not in fields:
        raise ConfigError(
            "A schedule must be a dataclass with `final`, `begin`, `end` and `sparsity_at`, "
            f"but {schedule!r} lacks {sorted(missing | ({'final'} - fields))}."
        )
    _REGISTRY.add(name, schedule)


def schedule_of(block: object) -> type[Schedule]:
    """Return the class that a config's ``schedule`` names; `Span` for a name that isn't known.

    >>> schedule_of({"kind": "rigl"}).__name__, schedule_of(None).__name__
    ('RiglSchedule', 'CubicSchedule')
    """
    kind = block.get("kind", DEFAULT_KIND) if isinstance(block, Mapping) else DEFAULT_KIND
    if not isinstance(kind, str) or kind not in SCHEDULES:
        return Span
    entry: Any = SCHEDULES[kind]
    return _with_rules(entry)


def schedule_faults(field: str, value: Any) -> Faults:
    """Yield what is wrong with a config's ``schedule``, apart from its other fields."""
    if not isinstance(value, Mapping):
        yield must(field, "a mapping {kind, begin, end, every}", value)
        return
    kind, schedule = value.get("kind", DEFAULT_KIND), schedule_of(value)
    if not isinstance(kind, str) or kind not in SCHEDULES:
        yield choice_fault(f"{field}.kind", kind, SCHEDULES)
    else:
        yield from unknown_keys(field, value, schedule.keys())
    yield from schedule.faults(field, value)


def complete(block: Mapping[str, Any]) -> dict[str, Any]:
    """Return a ``schedule`` mapping with what its kind has where it says nothing.

    >>> complete({"end": 0.5})
    {'kind': 'cubic', 'begin': 0.2, 'end': 0.5, 'every': 1000}
    """
    return {**schedule_of(block).all_defaults(), **block}


def fields_of(block: Mapping[str, Any], horizon: int) -> dict[str, Any]:
    """Return what a complete ``schedule`` mapping says of its class's fields, times in env steps.

    >>> fields_of(complete({"end": 900}), horizon=1000)
    {'begin': 200.0, 'end': 900}
    """
    kind: Any = SCHEDULES[block["kind"]]
    given = {**block, **schedule_of(block).times_in_steps(block, horizon)}
    return {
        field.name: given[field.name] for field in dataclasses.fields(kind) if field.name in given
    }


@functools.cache
def _with_rules(kind: Any) -> type[Schedule]:
    """Return a class as it is; a plain one of a user's own with the rules that all obey."""
    return kind if issubclass(kind, Schedule) else type(kind.__name__, (Span, kind), {})
