"""Atari games as convolutional nets take them: grey, small, the last frames side by side."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation, TransformObservation
from numpy.typing import NDArray

from rayprune.extras import needs

Frames = NDArray[np.float32]


def make_game(
    game: str = "Pong", size: int = 84, frames: int = 4, **keywords: Any
) -> gym.Env[Frames, int]:
    """Return a game of the Arcade Learning Environment, prepared as Mnih et al. 2015 did.

    Each step is four frames, of which the last two are merged; games begin with up to 30 idle
    frames. With Machado et al. 2018 (arXiv:1709.06009) an action sticks with probability 0.25.

    Args:
        game: such as ``Breakout``: what stands between ``ALE/`` and ``-v5``.
        size: edge of the picture in pixels.
        frames: how many pictures an observation has.
        keywords: ale-py's, such as ``repeat_action_probability``.

    Returns:
        An environment whose observations are grey values in [0, 1], shape ``(size, size, frames)``.

    Raises:
        ImportError: ale-py or OpenCV isn't installed.
    """
    try:
        import ale_py
        import cv2  # noqa: F401 - AtariPreprocessing asks for it when it shrinks its first frame
    except ImportError as error:
        raise ImportError(f"{needs('Atari-v0', 'atari')}.", name="ale_py") from error
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    gym.register_envs(ale_py)
    emulator = gym.make(f"ALE/{game}-v5", frameskip=1, **keywords)
    seen: gym.Env[Any, Any] = FrameStackObservation(
        AtariPreprocessing(emulator, screen_size=size), frames
    )
    space = gym.spaces.Box(0.0, 1.0, (size, size, frames), np.float32)
    return TransformObservation(seen, _scaled, space)


def _scaled(pictures: NDArray[np.uint8]) -> Frames:
    """Return the frames last, as floats."""
    return np.moveaxis(np.asarray(pictures), 0, -1).astype(np.float32) / np.float32(255)
