"""A replay buffer that holds only the newest steps once anything is pruned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from rayprune.pruning.checks import Faults, count
from rayprune.pruning.remedies.base import LEAST_REPLAY, Moment, Remedy, TrainingHost


class ReplayLimit(Remedy):
    """Bounds the replay buffer while the policy is pruned (RLx2, arXiv:2205.15043)."""

    key_of_bound: ClassVar[str] = "replay_limit"
    """Its key, whose value is the bound in env steps."""
    options: ClassVar[Mapping[str, str]] = {
        "replay_limit": "most env steps in the replay buffer once anything is pruned: the newest"
    }
    needs_replay = True

    @classmethod
    def faults(cls, field: str, block: Mapping[str, Any]) -> Faults:
        """Yield what is wrong with its key."""
        bound = block.get(cls.key_of_bound)
        if bound is not None:
            yield from count(f"{field}.{cls.key_of_bound}", bound, least=LEAST_REPLAY)

    @classmethod
    def is_in_force(cls, moment: Moment) -> bool:
        """Return whether the next iteration is bounded."""
        return moment.sparsity > 0

    @classmethod
    def after_iteration(
        cls, host: TrainingHost, moment: Moment, settings: Mapping[str, Any]
    ) -> None:
        """Bound the buffer, or let it be whole again."""
        bound = int(settings[cls.key_of_bound])
        host.set_replay_capacity(bound if cls.is_in_force(moment) else None)
