"""`Remedy`: a measure against what pruning does to the learning, and what it may set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from rayprune.pruning.component import Component
from rayprune.pruning.pruner_part import PrunerPart
from rayprune.pruning.schedules.times import in_steps

# RLlib's buffers drop whole episodes, and wait forever for one of n steps if none is left.
LEAST_REPLAY = 100


class TrainingHost(Protocol):
    """What a remedy may set on a training algorithm, whoever runs it."""

    def set_target_steps(self, steps: int) -> None:
        """Let value targets span so many steps from now on."""

    def set_replay_capacity(self, env_steps: int | None) -> None:
        """Let the replay buffer hold at most so many env steps in the next iteration.

        The smallest that any remedy sets counts; None sets no limit, so that it is whole again.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """Where a training is, between two iterations."""

    clock: int
    """Lifetime env steps."""
    horizon: int
    """Env steps of the whole run, which fractions are of."""
    sparsity: float = 0.0
    """Of the policy now."""
    churn: float = 0.0
    """Fraction of the weights whose mask has changed in the last iteration."""

    def has_come(self, time: float) -> bool:
        """Return whether a time has come, a fraction of the run or, above 1, env steps.

        >>> Moment(clock=500, horizon=1000).has_come(0.5)
        True
        """
        return self.clock >= in_steps(time, self.horizon)


class Remedy(PrunerPart, Component):
    """One entry of a config's ``remedies``, by its name in the registry.

    It acts where the weights are, as a part of the Pruner, or where the algorithm is driven, by
    the methods below. The two may lie in different processes: those below have no state.
    """

    options: ClassVar[Mapping[str, str]] = {}
    """Its keys in ``remedies``, the one of its own name first, with what each does in a line."""
    needs_replay: ClassVar[bool] = False
    """Whether it needs an algorithm with a replay buffer that fills while training."""
    changes_targets: ClassVar[bool] = False
    """Whether it changes in mid-run how many steps value targets span."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """The ``remedies`` of the Pruner's config as it is now."""
        found: Mapping[str, Any] = self.pruner.config.remedies
        return found

    @classmethod
    def before_training(
        cls, host: TrainingHost, moment: Moment, settings: Mapping[str, Any]
    ) -> None:
        """Act where an algorithm was built or restored.

        Args:
            host: of the algorithm.
            moment: the clock counts; sparsity and churn aren't known.
            settings: the config's ``remedies``.
        """

    @classmethod
    def after_iteration(
        cls, host: TrainingHost, moment: Moment, settings: Mapping[str, Any]
    ) -> None:
        """Act between two iterations."""
