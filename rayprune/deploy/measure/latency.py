"""How long calls take, side by side: arms in one process take turns and meet the same noise.

Arms are called in blocks, in an order shuffled anew each round. A ratio is the median of paired
ratios of the blocks' medians, with a bootstrap's interval over rounds. An A/A control, the first
arm once more, shows what is noise.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from rayprune.errors import InputError

Array = np.ndarray[Any, np.dtype[np.float64]]
Arm = Callable[[], object]

CONTROL: Final = "control"
"""The name of the arm that is the first one again."""
WARM_UPS: Final = 3
"""Calls before each block that aren't counted: they fetch what other arms drove from caches."""
LEAST_ROUNDS: Final = 5
_LEAST_CALLS, _MOST_CALLS = 5, 200
_RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Timings:
    """The calls of one arm."""

    blocks: tuple[Array, ...]
    """A block a round; the calls' times in seconds."""

    @property
    def medians(self) -> Array:
        """The median of each round, shape ``(rounds,)``."""
        return np.array([np.median(block) for block in self.blocks])

    def summary(self, deadline: float | None = None) -> dict[str, Any]:
        """Return the figures of all calls.

        Args:
            deadline: in seconds; None where calls have none.

        Returns:
            ``median_us``, its ``ci95_us`` over rounds, ``p99_us``, ``calls``, and ``missed``, the
            share of calls that took longer than the deadline (None without one).
        """
        calls = np.concatenate(self.blocks)
        low, high = _interval(self.medians)
        return {
            "median_us": 1e6 * float(np.median(calls)),
            "ci95_us": [1e6 * low, 1e6 * high],
            "p99_us": 1e6 * float(np.quantile(calls, 0.99)),
            "calls": len(calls),
            "missed": None if deadline is None else float(np.mean(calls > deadline)),
        }


def speed_up(slow: Timings, fast: Timings) -> dict[str, Any]:
    """Return how many times as fast one arm is as another.

    Args:
        slow: the reference.
        fast: measured in the same rounds.

    >>> blocks = [np.array([4.0, 4.0]), np.array([8.0, 8.0])]
    >>> speed_up(Timings(tuple(blocks)), Timings(tuple(block / 2 for block in blocks)))
    {'ratio': 2.0, 'ci95': [2.0, 2.0]}
    """
    ratios = slow.medians / fast.medians
    return {"ratio": float(np.median(ratios)), "ci95": list(_interval(ratios))}


def time_arms(
    arms: Mapping[str, Arm],
    *,
    rounds: int = 20,
    block_s: float = 0.005,
    limit_s: float = math.inf,
    seed: int = 0,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timings]:
    """Call each arm in turns and return what its calls took, with the control's beside them.

    Args:
        arms: what to call, by name.
        rounds: blocks of each arm.
        block_s: about how long a block lasts; of slow arms it holds 5 calls at least.
        limit_s: no round begins after so long, but for the first five.
        seed: of the order.
        clock: seconds, monotonic; wall time, for that is what a control loop waits.

    Raises:
        InputError: no arm, or one named as the control.
    """
    if not arms or CONTROL in arms:
        raise InputError(f"There must be an arm to time, and none named {CONTROL!r}.")
    named = {**arms, CONTROL: next(iter(arms.values()))}
    calls = {name: _calls_of(arm, block_s, clock) for name, arm in arms.items()}
    calls[CONTROL] = calls[next(iter(arms))]
    blocks: dict[str, list[Array]] = {name: [] for name in named}
    order, random = list(named), np.random.default_rng(seed)
    began = clock()
    for number in range(rounds):
        if number >= LEAST_ROUNDS and clock() - began > limit_s:
            break
        for index in random.permutation(len(order)):
            name = order[index]
            blocks[name].append(_block(named[name], calls[name], clock))
    return {name: Timings(tuple(found)) for name, found in blocks.items()}


def _block(arm: Arm, calls: int, clock: Callable[[], float]) -> Array:
    for _ in range(min(WARM_UPS, calls)):
        arm()
    taken = np.empty(calls)
    for call in range(calls):
        begin = clock()
        arm()
        taken[call] = clock() - begin
    return taken


def _calls_of(arm: Arm, block_s: float, clock: Callable[[], float]) -> int:
    arm()  # the first call may compile, allocate, or start threads
    typical = max(float(np.median(_block(arm, _LEAST_CALLS, clock))), 1e-9)
    return int(np.clip(block_s / typical, _LEAST_CALLS, _MOST_CALLS))


def _interval(values: Sequence[float] | Array) -> tuple[float, float]:
    """Return a 95 % percentile bootstrap of the median; equal values give equal intervals."""
    held = np.asarray(values, dtype=float)
    drawn = np.random.default_rng(0).integers(len(held), size=(_RESAMPLES, len(held)))
    low, high = np.quantile(np.median(held[drawn], axis=1), [0.025, 0.975])
    return float(low), float(high)
