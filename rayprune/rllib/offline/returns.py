"""What each recorded state earned in the end: the targets of MARWIL's values."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def returns_to_go(
    rewards: npt.NDArray[Any], ends: npt.NDArray[np.bool_], gamma: float
) -> npt.NDArray[np.float64]:
    """Return each step's discounted sum of its reward and those that follow in its episode.

    Wang et al. 2018 (Exponentially Weighted Imitation Learning for Batched Historical Data) weigh
    actions by it. An episode that is cut off earns nothing more.

    Args:
        rewards: of steps in their order, shape ``(steps,)``.
        ends: which steps are the last of their episode, likewise.
        gamma: the discount factor.

    >>> returns_to_go(np.array([1.0, 2.0, 4.0]), np.array([False, True, True]), 0.5).tolist()
    [2.0, 2.0, 4.0]
    """
    found = np.zeros(len(rewards))
    following = 0.0
    for step in reversed(range(len(rewards))):
        following = float(rewards[step]) + (0.0 if ends[step] else gamma * following)
        found[step] = following
    return found
