"""MinAtar's games as RLlib's convolutional nets take them."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from rayprune.extras import needs

Observation = NDArray[np.float32]


class MinAtarGame(gym.Env[Observation, int]):
    """A game of Young & Tian 2019 (arXiv:1903.03176) on a grid of 10 by 10 cells.

    The observation is one plane for each kind of object, shape ``(10, 10, kinds)``, as floats:
    MinAtar's own are bools, which RLlib flattens. The actions are those that the game reads.

    Args:
        game: MinAtar's name of it, such as ``space_invaders``.
        keywords: MinAtar's, such as ``sticky_action_prob``.
    """

    def __init__(self, game: str, **keywords: Any) -> None:
        try:
            from minatar import Environment
        except ImportError as error:
            raise ImportError(f"{needs(f'MinAtar {game}', 'minatar')}.", name="minatar") from error
        self._game = Environment(game, **keywords)
        self._actions = self._game.minimal_action_set()
        shape = tuple(self._game.state_shape())
        self.observation_space = gym.spaces.Box(0.0, 1.0, shape, np.float32)
        self.action_space = gym.spaces.Discrete(len(self._actions))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin a game."""
        super().reset(seed=seed)
        if seed is not None:
            self._game.seed(seed)
        self._game.reset()
        return self._see(), {}

    def step(self, action: int) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Play a frame."""
        reward, over = self._game.act(self._actions[int(action)])
        return self._see(), float(reward), bool(over), False, {}

    def _see(self) -> Observation:
        return np.asarray(self._game.state(), np.float32)


class MinBreakout(MinAtarGame):
    """Breakout: planes of paddle, ball, trail and bricks; stay, left, right."""

    def __init__(self, **keywords: Any) -> None:
        super().__init__("breakout", **keywords)


class MinSpaceInvaders(MinAtarGame):
    """Space Invaders: six planes; stay, left, right, fire."""

    def __init__(self, **keywords: Any) -> None:
        super().__init__("space_invaders", **keywords)
