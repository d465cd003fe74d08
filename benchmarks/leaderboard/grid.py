"""MiniGrid's DoorKey with observations that a fully connected net takes."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import register

INPUTS = 7 * 7 * 3 + 4
"""Cells ahead by object, colour and state, and the direction as one of four."""


class Flat(gym.ObservationWrapper[Any, Any, Any]):
    """The cells ahead and the direction as one vector of floats; the mission is always the same."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self.observation_space = gym.spaces.Box(0.0, 255.0, (INPUTS,), np.float32)

    def observation(self, observation: Any) -> Any:
        """Lay it flat."""
        direction = np.eye(4, dtype=np.float32)[observation["direction"]]
        return np.concatenate([observation["image"].astype(np.float32).ravel(), direction])


def make(**keywords: Any) -> gym.Env[Any, Any]:
    """Make a DoorKey of 5 by 5 cells."""
    try:
        import minigrid  # noqa: F401 - registers them
    except ImportError as error:
        raise ImportError("DoorKey needs MiniGrid: pip install minigrid.") from error
    return Flat(gym.make("MiniGrid-DoorKey-5x5-v0", **keywords))


register(id="DoorKey-v0", entry_point=make)
