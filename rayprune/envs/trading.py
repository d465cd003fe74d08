"""One instrument to trade, with made-up prices: what a user's own environment may look like."""

from __future__ import annotations

from typing import Any, Final

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Observation = dict[str, Floats]

PULL: Final = 0.2
"""Share of its distance from the fair price that the price makes up for in a step."""
FAIR: Final = 0.003
NOISE: Final = 0.01
"""Standard deviations of a step's change of the fair price, and of the price around it."""


class Trading(gym.Env[Observation, int]):
    """Hold -1, 0 or 1 units of what returns to a drifting fair price, and pay for each change.

    The logarithm of the price is a random walk, the fair price, and an Ornstein-Uhlenbeck process
    around it (in steps: AR(1)). Nobody sees the two apart: the last returns are all there is to
    go by. These prices are made up and say nothing of any market.

    The reward is what the position earned in a step, in per cent, costs paid; the return is the
    profit of an episode. Staying out earns 0, and any position that is held for ever 0 on average.

    ============  ======================================================
    ``prices``    the last ``window`` log returns in per cent, newest last
    ``account``   the position, and the share of the episode that is left
    ============  ======================================================

    Args:
        window: how many returns are seen.
        steps: of an episode.
        cost: share of a unit's price that buying or selling it costs.
    """

    def __init__(self, window: int = 16, steps: int = 200, cost: float = 0.001) -> None:
        if window < 1 or steps < 1 or cost < 0:
            raise ValueError(
                f"Trading needs window >= 1, steps >= 1 and cost >= 0, but has {window}, {steps} "
                f"and {cost}."
            )
        self._window, self._steps, self._cost = window, steps, cost
        self.action_space = gym.spaces.Discrete(3)
        self.observation_space = gym.spaces.Dict(
            account=gym.spaces.Box(-1.0, 1.0, (2,), np.float32),
            prices=gym.spaces.Box(-np.inf, np.inf, (window,), np.float32),
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Draw an episode's prices, and begin without a position."""
        super().reset(seed=seed)
        self._returns = self._drawn(self._window + self._steps)
        self._step, self._position = 0, 0
        return self._see(), {}

    def step(self, action: int) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Take the position -1, 0 or 1 at the last price, and hold it for a step."""
        position = int(action) - 1
        paid = self._cost * abs(position - self._position)
        earned = position * self._returns[self._window + self._step] - paid
        self._step, self._position = self._step + 1, position
        return self._see(), float(100 * earned), self._step == self._steps, False, {}

    def _drawn(self, steps: int) -> NDArray[np.float64]:
        """Return so many log returns."""
        fair = FAIR * self.np_random.standard_normal(steps)
        shocks = NOISE * self.np_random.standard_normal(steps + 1)
        away = np.zeros(steps + 1)
        away[0] = shocks[0] / np.sqrt(1 - (1 - PULL) ** 2)  # as it is after a long time
        for step in range(steps):
            away[step + 1] = (1 - PULL) * away[step] + shocks[step + 1]
        return fair + np.diff(away)

    def _see(self) -> Observation:
        seen = self._returns[self._step : self._step + self._window]
        left = 1 - self._step / self._steps
        return {
            "account": np.array([self._position, left], np.float32),
            "prices": (100 * seen).astype(np.float32),
        }
