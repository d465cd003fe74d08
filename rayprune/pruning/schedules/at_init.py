"""Pruning at initialisation: one cut before the first optimizer step, by what data say of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from rayprune.pruning.checks import Faults, count
from rayprune.pruning.component import Chosen
from rayprune.pruning.schedules.base import Span, check_schedule


# No slots: with them `super()` would not know the class that the decorator makes anew.
@dataclass(frozen=True, kw_only=True)
class AtInitSchedule(Span):
    """One cut at initialisation, by scores measured on the first minibatches.

    SNIP (Lee et al. 2019, arXiv:1810.02340), and for offline reinforcement learning, whose data are
    there before training is, Arnob et al. 2021 (arXiv:2112.15579). A Learner lets its first
    ``minibatches`` pass without a step, so that all of them see the weights as they were drawn, and
    prunes then, for good. Take ``criterion: snip`` with ``evidence: {objective: loss}``: the loss
    is the algorithm's own. Before a Pruner without a Learner takes a step, call its ``update(0)``.

    >>> cut = AtInitSchedule(final=0.95)
    >>> cut.sparsity_at(0), cut.begin, cut.end
    (0.95, 0.0, 0.0)
    """

    defaults: ClassVar[Mapping[str, Any]] = {"begin": 0.0, "end": 0.0, "minibatches": 10}
    endless: ClassVar[bool] = True
    sparse_from_start: ClassVar[bool] = True
    fixed: ClassVar[bool] = True
    measures_first: ClassVar[bool] = True

    final: float
    minibatches: int = 10

    def __post_init__(self) -> None:
        check_schedule(self.final, 0.0, 0.0)

    @property
    def begin(self) -> float:
        """Step 0."""
        return 0.0

    @property
    def end(self) -> float:
        """Step 0."""
        return 0.0

    def sparsity_at(self, step: float) -> float:
        """Return the same sparsity for all time."""
        del step
        return self.final

    @classmethod
    def own_faults(cls, field: str, block: Mapping[str, Any]) -> Faults:
        """Yield the faults of ``minibatches``, and of times, of which it knows only the start."""
        yield from count(f"{field}.minibatches", block.get("minibatches", 1))
        for key in ("begin", "end"):
            if block.get(key, 0) != 0:
                yield f"`{field}.{key}` must be left out: 'at_init' prunes before the first step."

    @classmethod
    def conflicts(cls, prefix: str, chosen: Chosen) -> Faults:
        """Yield what can't be known, or done, before training."""
        yield from super().conflicts(prefix, chosen)
        if "movement" in chosen.criterion.evidence or chosen.criterion.needs_returns:
            yield (
                f"`{prefix}criterion` {chosen.criterion_name!r} is measured while a policy is "
                f"trained, but `{prefix}schedule.kind` 'at_init' prunes before. Take 'snip', or "
                "another schedule."
            )
        operation = chosen.values.get("operation")
        if isinstance(operation, Mapping):
            yield (
                f"`{prefix}operation` must be 'zero' with `{prefix}schedule.kind` 'at_init', "
                f"but is {dict(operation)!r}: its weights are off from the start."
            )
