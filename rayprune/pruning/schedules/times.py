"""From what a config says of time (fractions, env steps, a return) to env steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

BEGAN = "began"
"""Key, written by a driver, of the clock at which the return of ``begin`` was reached."""

OWN_TIMES: Mapping[str, tuple[str, ...]] = {
    "lottery": ("rounds", "rewind_to", "round_steps"),
    "gated": ("begin", "patience"),
}
"""The keys of time of the kinds that don't run from ``begin`` to ``end``."""


def waits_for_return(schedule: Mapping[str, Any]) -> bool:
    """Whether ``begin`` is a return, ``{return: R}``, in place of a time."""
    return isinstance(schedule.get("begin"), Mapping)


def times_in_steps(schedule: Mapping[str, Any], horizon: int) -> dict[str, float]:
    """Return a complete schedule's times in env steps, by their key.

    With ``begin: {return: R}`` nothing begins before a driver has written `BEGAN`, and ``end``
    counts from there.

    >>> times_in_steps({"kind": "cubic", "begin": 0.25, "end": 900}, horizon=1000)
    {'begin': 250.0, 'end': 900}
    >>> waiting = {"kind": "cubic", "begin": {"return": 300.0}, "end": 0.4}
    >>> times_in_steps(waiting, horizon=1000), times_in_steps({**waiting, "began": 70}, 1000)
    ({'begin': inf, 'end': inf}, {'begin': 70, 'end': 470.0})
    >>> times_in_steps({"kind": "lottery", "rounds": 4, "rewind_to": 0, "round_steps": None}, 1000)
    {'rewind_to': 0, 'round_steps': 200}
    """
    if schedule["kind"] == "lottery":
        return _rounds(schedule, horizon)
    begin, end = schedule["begin"], in_steps(schedule.get("end", 0.0), horizon)
    if isinstance(begin, Mapping):
        began = schedule.get(BEGAN)
        start = math.inf if began is None else began
        return {"begin": start, "end": start + end}
    return {"begin": in_steps(begin, horizon), "end": end}


def in_steps(time: float, horizon: int) -> float:
    """Return a time in env steps: up to 1 it is a fraction of the horizon."""
    return time * horizon if time <= 1 else time


def fractions_in(schedule: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a complete schedule needs a horizon, by its key.

    >>> fractions_in({"kind": "cubic", "begin": 0, "end": 0.8, "every": 1000})
    {'end': 0.8}
    """
    keys = OWN_TIMES.get(schedule["kind"], ("begin", "end"))
    times = {key: schedule[key] for key in keys if not isinstance(schedule[key], Mapping)}
    times.pop("rounds", None)
    return {key: time for key, time in times.items() if time is None or 0 < time <= 1}


def _rounds(schedule: Mapping[str, Any], horizon: int) -> dict[str, float]:
    # Whole steps, so that the ends of rounds are met exactly.
    start = int(in_steps(schedule["rewind_to"], horizon))
    length = schedule["round_steps"]
    if length is None:
        length = max(1, (horizon - start) // (schedule["rounds"] + 1))
    return {"rewind_to": start, "round_steps": int(in_steps(length, horizon))}
