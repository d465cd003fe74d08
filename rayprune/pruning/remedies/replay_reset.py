"""A replay buffer that lets go of most of what it holds when masks have changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from rayprune.pruning.checks import Faults, count
from rayprune.pruning.remedies.base import LEAST_REPLAY, Moment, Remedy, TrainingHost


class ReplayReset(Remedy):
    """Keeps the newest steps of the replay buffer, after an iteration with a mask update."""

    options: ClassVar[Mapping[str, str]] = {
        "replay_reset": "env steps that the buffer keeps when masks have changed: the newest"
    }
    needs_replay = True

    @classmethod
    def faults(cls, field: str, block: Mapping[str, Any]) -> Faults:
        """Yield what is wrong with its key."""
        if block.get("replay_reset") is not None:
            yield from count(f"{field}.replay_reset", block["replay_reset"], least=LEAST_REPLAY)

    @classmethod
    def after_iteration(
        cls, host: TrainingHost, moment: Moment, settings: Mapping[str, Any]
    ) -> None:
        """Let older steps go, if a mask has changed."""
        host.set_replay_capacity(int(settings["replay_reset"]) if moment.churn > 0 else None)
