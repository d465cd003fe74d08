"""One mask update, decided: which weights stay and which grow. Changes nothing."""

from __future__ import annotations

from collections.abc import Sequence

from rayprune.pruning.update.budgets import Budget, Ramp, scopes_of, threshold_scopes
from rayprune.pruning.update.phases import Phase
from rayprune.pruning.update.regrowth import DropAndGrow, Masks
from rayprune.pruning.update.selection import Selection


def decide(
    selection: Selection,
    targets: Sequence[tuple[Phase, list[Budget]]],
    at: Ramp,
    share: float = 1.0,
    growth: DropAndGrow | None = None,
    taken: float = 1.0,
) -> tuple[Masks, Masks]:
    """Choose what stays of the weights that are left, and what of the others becomes active.

    Args:
        selection: scores by the whole config, and knows what may be chosen.
        targets: the phases in turn, with the budgets that they shall meet.
        at: turns a target into the sparsity that is due at this moment.
        share: how much of a threshold is due.
        growth: what may grow; None where the update only prunes.
        taken: how much of the step is taken, in [0, 1]: in every scope that share of what would
            go, the lowest scores first. So the masks of a smaller step contain those of a larger.

    Returns:
        Two dicts of bool tensors by full parameter name: True = stays, and True = grows. What is
        in neither stays as it is.

    Raises:
        InputError: the criterion, or growth, needs what wasn't given.
        NonFiniteError: a score is NaN.
        RunError: a threshold would prune everything.
    """
    keeps: Masks = {}
    whole: Masks = {}
    for phase, budgets in targets:
        # What an earlier phase drops is no longer there for a later one to choose; that is what
        # all of the step would drop, or a smaller step could choose what a larger one doesn't.
        left = selection.after(whole, phase.config)
        _keep_both(keeps, _decide_phase(left, budgets, at, share, taken))
        if len(targets) > 1:
            _keep_both(whole, _decide_phase(left, budgets, at, share, 1.0))
    if growth is None or not growth.due:
        return keeps, {}
    _, budgets = targets[0]  # what grows has granularity weight, of one phase
    return growth.decide(budgets, keeps)


def _keep_both(keeps: Masks, further: Masks) -> None:
    """Keep what both keep, in the first."""
    for name, keep in further.items():
        keeps[name] = keep & keeps[name] if name in keeps else keep


def _decide_phase(
    selection: Selection, budgets: list[Budget], at: Ramp, share: float, taken: float
) -> Masks:
    config = selection.config
    keeps: Masks = {}
    for budget in budgets:
        if budget.target is None:
            assert config.threshold is not None
            scopes = threshold_scopes(config, budget)
            keeps |= selection.keep_above_threshold(scopes, config.threshold, share, taken)
        else:
            for scope in scopes_of(config, budget, at):
                keeps |= selection.keep_scope(scope, taken)
    return keeps
