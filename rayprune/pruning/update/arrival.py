"""Whether masks have arrived at the target, wherever their schedule stands."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from rayprune.pruning.config import PruningConfig
from rayprune.pruning.update.budgets import Scope, scopes_of
from rayprune.pruning.update.phases import Phase

Eligible = Callable[[str], "Tensor | None"]


def arrived(config: PruningConfig, phases: Sequence[Phase], eligible: Eligible) -> bool:
    """Return whether no more is left than shall be left at the end.

    A run that starts from a pruned policy may be there before its schedule begins.

    Args:
        config: with a threshold the answer is no: what it cuts depends on scores to come.
        phases: of its pruning.
        eligible: full parameter name -> what is left, None for all of it.
    """
    if config.threshold is not None:
        return False
    return all(
        _left(scope, eligible) <= scope.keep
        for phase in phases
        for budget in phase.budgets
        for scope in scopes_of(phase.config, budget, lambda target: target)
    )


def _left(scope: Scope, eligible: Eligible) -> int:
    held = [
        (part.count, part.live({name: eligible(name) for name in part.parameters}))
        for part in scope.parts
    ]
    return sum(count if live is None else int(live.sum()) for count, live in held)
