"""Between which numbers a return lies: what a test without assumptions has to know."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rayprune.errors import InputError

GIVEN: Final = "given"
ENVIRONMENT: Final = "environment"
PILOT: Final = "pilot"

_TORQUE_COST: Final = math.pi**2 + 0.1 * 8.0**2 + 0.001 * 2.0**2
_KNOWN: Final[Mapping[str, tuple[float, float]]] = {
    # From their sources: the reward of a step times the most steps.
    "CartPole-v0": (0.0, 200.0),
    "CartPole-v1": (0.0, 500.0),
    "Acrobot-v1": (-500.0, 0.0),
    "MountainCar-v0": (-200.0, 0.0),
    "Pendulum-v1": (-200.0 * _TORQUE_COST, 0.0),
    "rayprune.envs:LongPole-v0": (0.0, 500.0),
    "rayprune.envs:Recall-v0": (0.0, 8.0),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReturnRange:
    """The least and the largest return, and how they are known."""

    low: float
    high: float
    source: str
    """``given`` by the user, known of the ``environment``, or from a ``pilot``."""

    def take(self, value: float, who: str, seed: int) -> float:
        """Return a return as the test counts it: within the range.

        A pilot's range is no promise: what is outside counts as its end.

        Raises:
            InputError: it is outside of a range that was given or is known, or is no number.
        """
        if not math.isfinite(value):
            raise InputError(f"The {who} policy's return on seed {seed} is {value}: no number.")
        if self.source != PILOT and not self.low <= value <= self.high:
            raise InputError(
                f"The {who} policy's return on seed {seed} is {value:g}, outside of the range "
                f"[{self.low:g}, {self.high:g}], which is {_REASONS[self.source]}. "
                "Give one that holds all returns with --return-range LOW HIGH."
            )
        return min(max(value, self.low), self.high)

    def flatters(self, dense: float, pruned: float) -> bool:
        """Whether counting what is outside as the end is to the pruned policy's advantage."""
        return pruned < self.low or dense > self.high


_REASONS: Final[Mapping[str, str]] = {
    GIVEN: "the one that was given",
    ENVIRONMENT: "what its environment allows",
}


def known_range(env: object, env_config: Mapping[str, Any]) -> ReturnRange | None:
    """Return the range that an environment's rules imply, None where they aren't known here.

    >>> known_range("CartPole-v1", {})
    ReturnRange(low=0.0, high=500.0, source='environment')
    """
    found = _KNOWN.get(str(env))
    # Its config may change rewards and time limits.
    if found is None or env_config:
        return None
    return ReturnRange(low=found[0], high=found[1], source=ENVIRONMENT)


def pilot_range(returns: Sequence[float]) -> ReturnRange:
    """Return a range that episodes of a pilot suggest, wide below because policies fail downwards.

    Args:
        returns: of both policies, on seeds that the test won't use.

    >>> pilot_range([100.0, 200.0, 300.0])
    ReturnRange(low=-200.0, high=320.0, source='pilot')
    """
    least, most = min(returns), max(returns)
    spread = max(most - least, abs(least), abs(most)) or 1.0
    return ReturnRange(low=least - spread, high=most + 0.1 * (most - least), source=PILOT)
