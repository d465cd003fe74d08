"""Schedules: step -> sparsity. Frozen and stateless, so a clone or a resumed run is on time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from rayprune.errors import ConfigError
from rayprune.pruning.registry import Registry
from rayprune.pruning.schedules.base import check_schedule
from rayprune.pruning.schedules.iterative import GatedSchedule, IterativeSchedule, LotterySchedule
from rayprune.pruning.schedules.sparse import (
    GrowSchedule,
    RiglSchedule,
    SetSchedule,
    StaticSchedule,
)


class Schedule(Protocol):
    """What a schedule must offer; a frozen dataclass with these keyword fields will do."""

    @property
    def final(self) -> float:
        """The sparsity at the end, in [0, 1)."""

    @property
    def begin(self) -> float:
        """The step of the first mask update."""

    @property
    def end(self) -> float:
        """The step from which the sparsity is ``final``."""

    def sparsity_at(self, step: float) -> float:
        """Return the sparsity due at a step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OneShotSchedule:
    """A single cut: nothing before ``begin``, everything at it.

    >>> cut = OneShotSchedule(final=0.9, begin=100)
    >>> [cut.sparsity_at(step) for step in (0, 99, 100, 500)]
    [0.0, 0.0, 0.9, 0.9]
    """

    final: float
    begin: float

    def __post_init__(self) -> None:
        check_schedule(self.final, self.begin, self.begin)

    @property
    def end(self) -> float:
        """The same step as ``begin``."""
        return self.begin

    def sparsity_at(self, step: float) -> float:
        """Return 0 before ``begin`` and ``final`` from it on."""
        return self.final if step >= self.begin else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ramp:
    final: float
    begin: float
    end: float

    def __post_init__(self) -> None:
        check_schedule(self.final, self.begin, self.end)

    def sparsity_at(self, step: float) -> float:
        """Return 0 up to ``begin``, the ramp's value between, and ``final`` from ``end`` on."""
        if step >= self.end:
            return self.final
        if step <= self.begin:
            return 0.0
        return self._between((step - self.begin) / (self.end - self.begin))

    def _between(self, progress: float) -> float:
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearSchedule(_Ramp):
    """A straight ramp, ``final * p`` with ``p = (step - begin) / (end - begin)``.

    >>> ramp = LinearSchedule(final=0.8, begin=0, end=100)
    >>> [ramp.sparsity_at(step) for step in (0, 50, 100, 500)]
    [0.0, 0.4, 0.8, 0.8]
    """

    def _between(self, progress: float) -> float:
        return self.final * progress


@dataclass(frozen=True, slots=True, kw_only=True)
class CubicSchedule(_Ramp):
    """The gradual-pruning ramp of Zhu & Gupta 2017 (arXiv:1710.01878): ``final * (1 - (1-p)^3)``.

    Fast while there is much to prune, slow towards the end.

    >>> ramp = CubicSchedule(final=0.9, begin=0, end=100)
    >>> [round(ramp.sparsity_at(step), 4) for step in (0, 50, 100, 500)]
    [0.0, 0.7875, 0.9, 0.9]
    """

    def _between(self, progress: float) -> float:
        return self.final * (1.0 - (1.0 - progress) ** 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExponentialSchedule(_Ramp):
    """The density decays exponentially, ``1 - (1 - final)^p``.

    Every update removes the same share of what is left.

    >>> ramp = ExponentialSchedule(final=0.75, begin=0, end=100)
    >>> [ramp.sparsity_at(step) for step in (0, 50, 100, 500)]
    [0.0, 0.5, 0.75, 0.75]
    """

    def _between(self, progress: float) -> float:
        return 1.0 - math.pow(1.0 - self.final, progress)


_REGISTRY: Registry[type[Schedule]] = Registry(
    "schedule",
    {
        "one_shot": OneShotSchedule,
        "linear": LinearSchedule,
        "cubic": CubicSchedule,
        "exponential": ExponentialSchedule,
        "iterative": IterativeSchedule,
        "lottery": LotterySchedule,
        "gated": GatedSchedule,
        "static": StaticSchedule,
        "set": SetSchedule,
        "rigl": RiglSchedule,
        "grow": GrowSchedule,
    },
)
SCHEDULES: Mapping[str, type[Schedule]] = _REGISTRY


def register_schedule(name: str, schedule: type[Schedule]) -> None:
    """Make a schedule known by name to `PruningConfig` and the YAML.

    Args:
        name: a new name.
        schedule: a dataclass with the method ``sparsity_at``, the field ``final`` and fields or
            properties ``begin`` and ``end`` (in steps); what other fields it has can be set in
            the config's ``schedule``.

    Raises:
        ConfigError: the name is taken, or something of that is missing.

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
