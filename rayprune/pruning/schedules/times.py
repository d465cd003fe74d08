"""What a config says of a time: a fraction of the run, env steps, or a return to wait for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

BEGAN = "began"
"""Key, written by a driver, of the clock at which the return of ``begin`` was reached."""


def waits_for_return(schedule: Mapping[str, Any]) -> bool:
    """Whether ``begin`` is a return, ``{return: R}``, in place of a time."""
    return isinstance(schedule.get("begin"), Mapping)


def in_steps(time: float, horizon: int) -> float:
    """Return a time in env steps: up to 1 it is a fraction of the horizon."""
    return time * horizon if time <= 1 else time
