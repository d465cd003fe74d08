"""Schedules: the rules of their keys and times, which each kind inherits and adds to."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

from rayprune.errors import ConfigError
from rayprune.pruning.checks import Faults, count, is_finite, is_time, must
from rayprune.pruning.component import ScheduleRules
from rayprune.pruning.schedules.times import BEGAN, in_steps, waits_for_return

DEFAULT_KIND: Final = "cubic"
"""The kind of a ``schedule`` that names none."""


class Schedule(ScheduleRules):
    """When how much is pruned: a curve from env steps to sparsity.

    Frozen and stateless, so that a clone or a resumed run is on time. A kind is a dataclass with
    the field ``final``, fields or properties ``begin`` and ``end`` (in steps) and `sparsity_at`.
    Its other fields, and the keys of its `defaults`, may be set in the config's ``schedule``.
    """

    __slots__ = ()

    times: ClassVar[tuple[str, ...]] = ()
    """The keys that hold a time: a fraction of the run or, above 1, env steps."""

    if TYPE_CHECKING:  # a dataclass would take a property of its base for a field's default

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
        raise NotImplementedError

    @classmethod
    def all_defaults(cls) -> dict[str, Any]:
        """Return what its keys are where a config says nothing, inherited ones included."""
        found: dict[str, Any] = {}
        for kind in reversed(cls.__mro__):
            if issubclass(kind, Schedule):
                found |= vars(kind).get("defaults", {})
        return found

    @classmethod
    def keys(cls) -> set[str]:
        """Return the keys that its mapping may have."""
        own = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
        waiting = {BEGAN} if "begin" in own else set()
        return {"kind", *cls.all_defaults(), *own, *waiting} - {"final"}

    @classmethod
    def faults(cls, field: str, block: Mapping[str, Any]) -> Faults:
        """Yield what is wrong with its keys."""
        yield from cls.begin_faults(field, block)
        yield from cls.own_faults(field, block)

    @classmethod
    def begin_faults(cls, field: str, block: Mapping[str, Any]) -> Faults:
        """Yield the fault of a ``begin`` that waits for what is no return."""
        begin = block.get("begin")
        if isinstance(begin, Mapping) and not (
            set(begin) == {"return"} and is_finite(begin["return"])
        ):
            yield must(f"{field}.begin", "a time or {return: R}", begin)

    @classmethod
    def own_faults(cls, field: str, block: Mapping[str, Any]) -> Faults:
        """Yield what is wrong with the keys that only this kind has; for kinds to override."""
        del field, block
        yield from ()

    @classmethod
    def every(cls, block: Mapping[str, Any], horizon: int) -> int:
        """Return the env steps between mask updates.

        Args:
            block: a complete ``schedule`` mapping.
            horizon: env steps of the run.
        """
        del horizon
        return int(block.get("every", Span.defaults["every"]))

    @classmethod
    def times_in_steps(cls, block: Mapping[str, Any], horizon: int) -> dict[str, float]:
        """Return a complete mapping's times in env steps, by their key.

        With ``begin: {return: R}`` nothing begins before a driver has written `BEGAN`, and ``end``
        counts from there.

        >>> Span.times_in_steps({"begin": 0.25, "end": 900}, horizon=1000)
        {'begin': 250.0, 'end': 900}
        >>> waiting = {"begin": {"return": 300.0}, "end": 0.4}
        >>> Span.times_in_steps(waiting, 1000), Span.times_in_steps({**waiting, "began": 70}, 1000)
        ({'begin': inf, 'end': inf}, {'begin': 70, 'end': 470.0})
        """
        end = in_steps(block.get("end", 0.0), horizon)
        if waits_for_return(block):
            start = block.get(BEGAN)
            begin = math.inf if start is None else start
            return {"begin": begin, "end": begin + end}
        return {"begin": in_steps(block["begin"], horizon), "end": end}

    @classmethod
    def fractions(cls, block: Mapping[str, Any]) -> dict[str, Any]:
        """Return what of a complete mapping needs a horizon, by its key.

        >>> Span.fractions({"kind": "cubic", "begin": 0, "end": 0.8, "every": 1000})
        {'end': 0.8}
        """
        times = {key: block[key] for key in cls.times if not isinstance(block[key], Mapping)}
        return {key: time for key, time in times.items() if time is None or 0 < time <= 1}


class Span(Schedule):
    """A schedule that runs from ``begin`` to ``end``, with a mask update each ``every`` steps."""

    __slots__ = ()

    defaults: ClassVar[Mapping[str, Any]] = {
        "kind": DEFAULT_KIND,
        "begin": 0.2,
        "end": 0.8,
        "every": 1000,
    }
    times: ClassVar[tuple[str, ...]] = ("begin", "end")
    endless: ClassVar[bool] = False
    """Whether ``end`` plays no part."""

    @classmethod
    def faults(cls, field: str, block: Mapping[str, Any]) -> Faults:
        """Yield what is wrong with its keys."""
        yield from cls.begin_faults(field, block)
        yield from cls.own_faults(field, block)
        yield from cls.time_faults(field, block)

    @classmethod
    def time_faults(cls, field: str, block: Mapping[str, Any]) -> Faults:
        """Yield what is wrong with ``every``, ``begin`` and ``end``."""
        yield from count(f"{field}.every", block.get("every", 1), unit="(env steps)")
        given = {**cls.all_defaults(), **block}
        # Where a return is waited for, `end` counts from the moment when it is reached.
        begin, end = 0.0 if waits_for_return(given) else given["begin"], given["end"]
        wrong = [(key, t) for key, t in (("begin", begin), ("end", end)) if not is_time(t)]
        for key, time in wrong:
            yield must(f"{field}.{key}", "a number of at least 0 (above 1: env steps)", time)
        # A fraction and a number of steps can only be compared once the horizon is known.
        if not wrong and (begin <= 1) == (end <= 1) and end < begin and not cls.endless:
            yield f"`{field}.end` must not be less than `begin` ({begin}), but is {end}."


def check_schedule(final: float, begin: float, end: float, *faults: str) -> None:
    """Raise ConfigError with ``faults`` and those of the fields that all schedules have."""
    found = [fault for fault in faults if fault]
    if not 0.0 <= final < 1.0:
        found.append(f"`final` must be in [0, 1), but is {final}.")
    if begin < 0:
        found.append(f"`begin` must be at least 0, but is {begin}.")
    if end < begin:
        found.append(f"`end` must not be less than `begin` ({begin}), but is {end}.")
    if found:
        raise ConfigError(found)
