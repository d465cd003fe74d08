"""A replay buffer that lets go of most of what it holds when masks have changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from rayprune.pruning.remedies.base import Moment
from rayprune.pruning.remedies.replay_limit import ReplayLimit


class ReplayReset(ReplayLimit):
    """Keeps the newest steps of the replay buffer, after an iteration with a mask update."""

    key_of_bound = "replay_reset"
    options: ClassVar[Mapping[str, str]] = {
        "replay_reset": "env steps that the buffer keeps when masks have changed: the newest"
    }

    @classmethod
    def is_in_force(cls, moment: Moment) -> bool:
        """Return whether a mask has changed in the last iteration."""
        return moment.churn > 0
