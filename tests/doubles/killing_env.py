"""CartPole in which a run ends itself without a word, once, when it has written a checkpoint."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import gymnasium as gym
from gymnasium.envs.classic_control import CartPoleEnv


class KillingCartPole(CartPoleEnv):
    """Kills its process at the first step after a first checkpoint.

    A test that polls for the checkpoint and then sends a signal may find the run at its end.

    Args:
        run: the run's directory, or one that its trials are in.
        flag: a file that is made before the kill; where it is there, nobody is killed.
    """

    def __init__(self, run: str, flag: str) -> None:
        super().__init__()
        self._run, self._flag = Path(run), Path(flag)

    def step(self, action: Any) -> Any:
        """Step, or die."""
        if not self._flag.exists() and any(self._run.rglob("checkpoints/[0-9]*")):
            self._flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(action)


gym.register("KillingCartPole-v0", entry_point=KillingCartPole, max_episode_steps=500)
KILLING = f"{__name__}:KillingCartPole-v0"
