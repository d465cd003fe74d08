"""A replay buffer that holds only the newest steps once anything is pruned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from rayprune.pruning.checks import Faults, count
from rayprune.pruning.remedies.base import LEAST_REPLAY, Moment, Remedy, TrainingHost


class ReplayLimit(Remedy):
    """Bounds the replay buffer while the policy is pruned (RLx2, arXiv:2205.15043)."""

    options: ClassVar[Mapping[str, str]] = {
        "replay_limit": "most env steps in the replay buffer once anything is pruned: the newest"
    }
    needs_replay = True

    @classmethod
    def faults(cls, field: str, block: Mapping[str, Any]) -> Faults:
        """Yield what is wrong with its key."""
        if block.get("replay_limit") is not None:
            yield from count(f"{field}.replay_limit", block["replay_limit"], least=LEAST_REPLAY)

    @classmethod
    def after_iteration(
        cls, host: TrainingHost, moment: Moment, settings: Mapping[str, Any]
    ) -> None:
        """Set the limit, if anything is pruned."""
        host.set_replay_capacity(int(settings["replay_limit"]) if moment.sparsity > 0 else None)
