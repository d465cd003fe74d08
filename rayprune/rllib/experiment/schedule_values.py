"""Settings of RLlib that take a number or a schedule ``[[env step, value], ...]``."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

SCHEDULED: Final[Mapping[str, tuple[float, float]]] = {
    "lr": (0.0, math.inf),
    "actor_lr": (0.0, math.inf),
    "critic_lr": (0.0, math.inf),
    "alpha_lr": (0.0, math.inf),
    "entropy_coeff": (-math.inf, math.inf),
    "epsilon": (0.0, 1.0),
}
"""The keys of `training` that RLlib gives to its Scheduler, with the range of their values."""


def schedule_faults(where: str, key: str, value: Any) -> Iterator[str]:
    """Yield what is wrong with the value of a scheduled setting.

    >>> list(schedule_faults("lr", "lr", [[0, 0.001], [100000, 0.0]]))
    []
    >>> list(schedule_faults("lr", "lr", [[0, 0.001], [0, 0.0]]))
    ['`lr` is a schedule whose steps must rise from 0, but they are [0, 0].']
    """
    if value is None:
        return
    if _is_number(value):
        yield from _range_faults(where, key, [value])
    elif not isinstance(value, (list, tuple)):
        yield (
            f"`{where}` must be a number, or a schedule such as [[0, 0.1], [100000, 0.0]] (env "
            f"step, value), but is {value!r}."
        )
    elif len(value) < 2 or not all(map(_is_pair, value)):
        yield (
            f"`{where}` is a schedule, so it must be two or more pairs [env step, value] of "
            f"numbers, such as [[0, 0.1], [100000, 0.0]], but is {value!r}."
        )
    else:
        yield from _step_faults(where, [pair[0] for pair in value])
        yield from _range_faults(where, key, [pair[1] for pair in value])


def _step_faults(where: str, steps: list[Any]) -> Iterator[str]:
    rises = all(before < after for before, after in itertools.pairwise(steps))
    if steps[0] != 0 or not rises:
        yield f"`{where}` is a schedule whose steps must rise from 0, but they are {steps}."


def _range_faults(where: str, key: str, values: list[Any]) -> Iterator[str]:
    low, high = SCHEDULED[key]
    for value in values:
        if not math.isfinite(value) or value < low:
            least = "finite" if low == -math.inf else f"at least {low:g}"
            yield f"`{where}` must be {least}, but is {value!r}."
        elif value > high:
            yield f"`{where}` must be at most {high:g}, but is {value!r}."


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_pair(pair: Any) -> bool:
    return isinstance(pair, (list, tuple)) and len(pair) == 2 and all(map(_is_number, pair))
