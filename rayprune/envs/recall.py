"""A cue, a wait, and a question: a policy without memory can only guess."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

Observation = NDArray[np.float32]


class Recall(gym.Env[Observation, int]):
    """Several rounds of: see a cue, wait, and name the cue when asked.

    The observation has one place for each cue, 1 in the step that shows it, and a last place that
    is 1 in the step that asks. A right answer earns 1, anything else nothing, so the best return
    is ``rounds`` and guessing earns ``rounds / cues`` on average.

    Args:
        cues: how many there are.
        delay: steps between cue and question, in which nothing is seen.
        rounds: of an episode, which has ``rounds * (delay + 2)`` steps.
    """

    def __init__(self, cues: int = 4, delay: int = 6, rounds: int = 8) -> None:
        if cues < 2 or delay < 0 or rounds < 1:
            raise ValueError(
                f"Recall needs cues >= 2, delay >= 0 and rounds >= 1, but has {cues}, {delay} and "
                f"{rounds}."
            )
        self.observation_space = gym.spaces.Box(0.0, 1.0, (cues + 1,), np.float32)
        self.action_space = gym.spaces.Discrete(cues)
        self._cues, self._delay, self._rounds = cues, delay, rounds

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin the first round."""
        super().reset(seed=seed)
        self._step = 0
        return self._see(), {}

    def step(self, action: int) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Take an answer; it only counts where the question is asked."""
        right = self._asks() and int(action) == self._cue
        self._step += 1
        over = self._step == self._rounds * (self._delay + 2)
        return self._see(), float(right), over, False, {}

    def _asks(self) -> bool:
        return self._step % (self._delay + 2) == self._delay + 1

    def _see(self) -> Observation:
        seen = np.zeros(self._cues + 1, np.float32)
        if self._step % (self._delay + 2) == 0:
            self._cue = int(self.np_random.integers(self._cues))
            seen[self._cue] = 1
        seen[-1] = self._asks()
        return seen
