"""Targets of several steps, for algorithms with a replay buffer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from rayprune.pruning.checks import LATEST, Faults, count, number
from rayprune.pruning.remedies.base import Moment, Remedy, TrainingHost

STEPS: Final = "n_step"
FROM: Final = "n_step_from"


class NStep(Remedy):
    """Lets targets span n steps from a time on (RLx2, Tan et al. 2023, arXiv:2205.15043)."""

    options: ClassVar[Mapping[str, str]] = {
        STEPS: "targets of n steps in place of one, from `n_step_from` on (replay algorithms)",
        FROM: "when: a fraction of the run, or env steps above 1; 0 by default",
    }
    needs_replay = True
    changes_targets = True

    @classmethod
    def faults(cls, field: str, block: Mapping[str, Any]) -> Faults:
        """Yield what is wrong with its keys."""
        if block.get(STEPS) is not None:
            yield from count(f"{field}.{STEPS}", block[STEPS], least=2)
        start = block.get(FROM, 0)
        constraint = "a number of at least 0"
        yield from number(f"{field}.{FROM}", start, constraint, lambda x: 0 <= x < LATEST)
        if FROM in block and block.get(STEPS) is None:
            yield f"`{field}.{FROM}` says when, but `{field}.{STEPS}` is missing. Give it too."

    @classmethod
    def before_training(
        cls, host: TrainingHost, moment: Moment, settings: Mapping[str, Any]
    ) -> None:
        """Set the steps, if their time has come."""
        if moment.has_come(settings.get(FROM, 0)):
            host.set_target_steps(int(settings[STEPS]))

    after_iteration = before_training
