"""CartPole with another pole."""

from __future__ import annotations

from typing import Any

from gymnasium.envs.classic_control.cartpole import CartPoleEnv


class LongPole(CartPoleEnv):
    """CartPole with a pole of a given length.

    Args:
        length: half the pole's length in metres; CartPole's own is 0.5.
        keywords: CartPole's.
    """

    def __init__(self, length: float = 1.0, **keywords: Any) -> None:
        if not length > 0:
            raise ValueError(f"LongPole needs length > 0, but has {length}.")
        super().__init__(**keywords)
        self.length = length
        # The dynamics use the product, which CartPole computes once.
        self.polemass_length = self.masspole * length
