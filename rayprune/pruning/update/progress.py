"""How far pruning has come: whether it has arrived, and what a mask update waits for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from rayprune.pruning.config import PruningConfig
from rayprune.pruning.granularity import Part, granularity_of
from rayprune.pruning.layers.prunable import PrunableLayer, Unit
from rayprune.pruning.pruner_part import PrunerPart
from rayprune.pruning.reports import MaskChange
from rayprune.pruning.update.budgets import Budget, Ramp, Scope, scopes_of
from rayprune.pruning.update.phases import Phase

Eligible = Callable[[str], "Tensor | None"]


class LostReturns(PrunerPart):
    """The return lost without each unit, which a driver measures for one mask update."""

    key: ClassVar[str] = "returns"

    def __init__(self) -> None:
        self.lost: dict[str, float] = {}
        """By unit."""

    def after_update(self, change: MaskChange) -> None:
        """Forget what was used."""
        del change
        self.lost.clear()

    def state_dict(self) -> dict[str, float]:
        """Return them as plain numbers."""
        return {name: float(lost) for name, lost in self.lost.items()}

    def unpack(self, state: Mapping[str, Any] | None) -> dict[str, float]:
        """Return them by unit."""
        return {name: float(lost) for name, lost in (state or {}).items()}

    def restore(self, unpacked: dict[str, float]) -> None:
        """Take them over."""
        self.lost = unpacked


def _at_the_end(target: float) -> float:
    return target


def arrived(
    config: PruningConfig, phases: Sequence[Phase], eligible: Eligible, at: Ramp = _at_the_end
) -> bool:
    """Return whether no more is left than shall be left, at the end or at another moment.

    A run that starts from a pruned policy may be there before its schedule begins.

    Args:
        config: with a threshold the answer is no: what it cuts depends on scores to come.
        phases: of its pruning.
        eligible: full parameter name -> what is left, None for all of it.
        at: turns a target into the sparsity that is due; by default the target itself.
    """
    if config.threshold is not None:
        return False
    return all(
        _left(scope, eligible) <= scope.keep
        for phase in phases
        for budget in phase.budgets
        for scope in scopes_of(phase.config, budget, at)
    )


def awaits(config: PruningConfig, budget: Budget, at: Ramp, eligible: Eligible) -> bool:
    """Return whether choosing in a budget needs scores: more units stand than shall stay.

    Args:
        config: with granularity ``layer``.
        budget: the layers and their target; with a threshold it always needs them.
        at: turns a target into the sparsity that is due.
        eligible: full parameter name -> what may still be chosen.
    """
    if budget.target is None:
        return any(
            _stands(part, eligible)
            for part in granularity_of(config.granularity).parts(budget.free)
        )
    return any(
        sum(_stands(part, eligible) for part in scope.parts) > scope.keep
        for scope in scopes_of(config, budget, at)
    )


def standing_units(layers: Sequence[PrunableLayer], eligible: Eligible) -> list[Unit]:
    """Return the units of which anything may still be chosen, each once."""
    free = [
        layer
        for layer in layers
        if any(_any_left(eligible(layer.full_name(name))) for name in layer.parameters)
        and not getattr(layer.module, "bypassed", False)
    ]
    return list({layer.unit.name: layer.unit for layer in free if layer.unit}.values())


def _left(scope: Scope, eligible: Eligible) -> int:
    held = [
        (part.count, part.live({name: eligible(name) for name in part.parameters}))
        for part in scope.parts
    ]
    return sum(count if live is None else int(live.sum()) for count, live in held)


def _stands(part: Part, eligible: Eligible) -> bool:
    live = part.live({name: eligible(name) for name in part.parameters})
    return live is None or bool(live.any())


def _any_left(mask: Tensor | None) -> bool:
    return mask is None or bool(torch.any(mask))
