"""MiniGrid's tasks as convolutional nets take them: what the agent sees, a plane for each thing."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import TransformObservation
from numpy.typing import NDArray

from rayprune.extras import needs


def make_task(
    task: str = "MiniGrid-DoorKey-5x5-v0", **keywords: Any
) -> gym.Env[NDArray[np.float32], int]:
    """Return a task of MiniGrid (Chevalier-Boisvert et al. 2023, arXiv:2306.13831).

    The observation is the 7 by 7 cells before the agent, one plane for each kind of thing, colour
    and state, as floats 0 and 1: the mission's text, which is always the same here, is left out.

    Args:
        task: MiniGrid's id.
        keywords: MiniGrid's, such as ``max_steps``.

    Raises:
        ImportError: MiniGrid isn't installed.
    """
    try:
        import minigrid  # noqa: F401 - registers the tasks
        from minigrid import wrappers
    except ImportError as error:
        raise ImportError(f"{needs('MiniGrid-v0', 'minigrid')}.", name="minigrid") from error
    theirs: Any = wrappers  # without types of its own, where it is installed
    pictures = theirs.ImgObsWrapper(theirs.OneHotPartialObsWrapper(gym.make(task, **keywords)))
    shape = pictures.observation_space.shape
    # MiniGrid says 0 to 255 of what is 0 or 1.
    space = gym.spaces.Box(0.0, 1.0, shape, np.float32)
    return TransformObservation(pictures, _as_floats, space)


def _as_floats(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    return picture.astype(np.float32)
