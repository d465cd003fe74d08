"""What a run knows of itself: its counters, its best checkpoint, and whether it is over."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rayprune.config import StopConfig


@dataclass
class RunCounters:
    """What a run knows of itself; saved with each checkpoint."""

    env_steps: int = 0
    updates: int = 0
    iteration: int = 0
    wall_time_s: float = 0.0
    best: str | None = None
    """Name of the best checkpoint at the target sparsity."""
    best_score: list[float] | None = None
    """Its validation IQM and mean."""
    newest: str | None = None
    discarded_env_steps: int = 0
    """Env steps of tries that were rolled back: sampled, but in no policy."""
    discarded_updates: int = 0
    director: dict[str, Any] = field(default_factory=dict)
    """State of the decisions that wait for validations."""

    @property
    def clock(self) -> int:
        """Env steps, or updates where no steps are sampled (offline)."""
        return self.env_steps or self.updates

    @property
    def moment(self) -> str:
        """The clock for people."""
        if not self.clock:
            return "the start"
        return f"env step {self.env_steps}" if self.env_steps else f"update {self.updates}"

    @classmethod
    def from_meta(cls, meta: dict[str, Any]) -> RunCounters:
        """Return the progress that a checkpoint holds."""
        return cls(**{name: meta[name] for name in vars(cls()) if name in meta})

    def discard_since(self, meta: dict[str, Any]) -> None:
        """Count what has been done since a checkpoint as discarded: a run goes back to it."""
        held = RunCounters.from_meta(meta)
        self.discarded_env_steps = self.env_steps - (held.env_steps - held.discarded_env_steps)
        self.discarded_updates = self.updates - (held.updates - held.discarded_updates)

    def accept(self, name: str, validation: dict[str, Any]) -> None:
        """Make the checkpoint ``name`` the best, whatever others earned: it is sparser."""
        self.best, self.best_score = name, [validation["iqm"], validation["mean"]]

    def done(
        self, stop: StopConfig, validation: dict[str, Any] | None, pruning_finished: bool
    ) -> bool:
        """Whether a stop criterion is reached.

        Args:
            stop: the criteria.
            validation: the newest, None before the first.
            pruning_finished: a return reached before says nothing about the pruned policy.
        """
        if stop.env_steps is not None and self.env_steps >= stop.env_steps:
            return True
        if stop.updates is not None and self.updates >= stop.updates:
            return True
        if stop.return_ is None or validation is None:
            return False
        return bool(validation["iqm"] >= stop.return_) and pruning_finished

    def compare_with_best(self, name: str, validation: dict[str, Any]) -> None:
        """Make the checkpoint ``name`` the best if no other validated better.

        Where the IQM is at an environment's ceiling, the mean still counts episodes that fail. Of
        two equally good policies the later one has trained longer at its sparsity.
        """
        score = [validation["iqm"], validation["mean"]]
        if self.best_score is None or score >= self.best_score:
            self.best, self.best_score = name, score
