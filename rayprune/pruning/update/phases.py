"""Phases: what a mask update decides in turn, each over its budgets.

Hybrid pruning has two phases, all else has one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rayprune.errors import ConfigError
from rayprune.pruning.config import PruningConfig
from rayprune.pruning.granularity import granularity_of
from rayprune.pruning.granularity.head import with_heads
from rayprune.pruning.granularity.hybrid import field_of, turns
from rayprune.pruning.layers.prunable import PrunableLayer, protected_names
from rayprune.pruning.update.budget_faults import faults_with, reach_faults
from rayprune.pruning.update.budgets import Budget, counts_of

_MOST = 0.999
"""The sparsity at which a search for the sparsest policy ends if no target bounds it."""
_OF_THE_WHOLE: Mapping[str, Any] = {
    "penalty": None,
    "compact_every": None,
    "max_kl": None,
    "max_value_change": None,
}
"""What is the whole config's, whatever its phases are."""


@dataclass(frozen=True, slots=True)
class Phase:
    """One granularity over the layers that it can prune."""

    config: PruningConfig
    """The whole config, or what hybrid pruning makes of it for one of its granularities."""
    layers: tuple[PrunableLayer, ...]
    in_turn: bool = False
    """Whether it is one of several."""

    @property
    def budgets(self) -> list[Budget]:
        """The budgets, with their fields named as the user's config has them."""
        budgets = _budgets_of(self.config, self.layers)
        if not self.in_turn:
            return budgets
        kind = self.config.granularity
        return [dataclasses.replace(b, field=field_of(b.field, kind)) for b in budgets]

    def by_chance(self) -> Phase:
        """Return the same phase with random scores."""
        return dataclasses.replace(self, config=self.config.replace(criterion="random"))

    def retargeted(self, sparsity: float) -> list[Budget]:
        """Return the budgets with one target for all.

        Raises:
            ConfigError: out of range or reach, or a granularity whose targets are not one number.
        """
        faults = PruningConfig.faults_of({"sparsity": sparsity}, prefix="")
        implied = self.config.chosen.granularity.implied_sparsity
        if self.in_turn:
            faults.append("`sparsity` must be left out, since `hybrid` names two.")
        if not faults and implied is not None and sparsity > implied:
            faults.append(
                f"`sparsity` must be at most {implied:g}, which granularity "
                f"{self.config.granularity!r} reaches, but is {sparsity}."
            )
        if faults:
            raise ConfigError(faults)
        changed = [dataclasses.replace(b, field="sparsity", target=sparsity) for b in self.budgets]
        if isinstance(self.config.distribution, str):
            faults = [fault for b in changed for fault in reach_faults(self.config, b)]
        if faults:
            raise ConfigError(faults)
        return changed


def _budgets_of(config: PruningConfig, layers: Iterable[PrunableLayer]) -> list[Budget]:
    """Group the layers into budgets.

    Args:
        config: names the groups with a budget of their own.
        layers: every layer that can be pruned or is protected.
    """
    layers = list(layers)
    if config.chosen.granularity.implied_sparsity is not None:
        # The pattern fixes every layer's sparsity: none carries what a protected one keeps.
        protected = protected_names(layers, config.protect)
        layers = [layer for layer in layers if layer.name not in protected]
    named = {group: spec["sparsity"] for group, spec in config.groups.items()}
    fields: list[tuple[str, float | None, list[PrunableLayer]]] = [
        (f"pruning.groups.{group}.sparsity", sparsity, [x for x in layers if x.group == group])
        for group, sparsity in named.items()
    ]
    rest = [layer for layer in layers if layer.group not in named]
    # A search that was given no bound may go as far as masks can.
    target = _MOST if config.unbounded else config.target
    fields.append(("pruning.sparsity", target, rest))
    budgets = [
        Budget(field, target, tuple(members), protected_names(members, config.protect))
        for field, target, members in fields
        if members
    ]
    return [_within_reach(config, budget) for budget in budgets] if config.unbounded else budgets


def _within_reach(config: PruningConfig, budget: Budget) -> Budget:
    """Lower the bound of a search that was given none to what protected layers leave."""
    if budget.field != "pruning.sparsity":
        return budget
    total, free = counts_of(granularity_of(config.granularity), budget)
    return dataclasses.replace(budget, target=min(_MOST, free / total))


def phases_of(
    config: PruningConfig, layers: Sequence[PrunableLayer], heads: frozenset[str]
) -> list[Phase]:
    """Return what a mask update decides in turn.

    Args:
        config: the user's.
        layers: the prunable layers, protected ones included.
        heads: names of layers of which no unit can go.
    """
    if not config.chosen.granularity.in_turn:
        return [Phase(config, tuple(layers))]
    singles = [config.replace(**changes, **_OF_THE_WHOLE) for changes in turns(config.chosen)]
    return [Phase(single, _within(single, layers, heads), in_turn=True) for single in singles]


def _within(
    config: PruningConfig, layers: Iterable[PrunableLayer], heads: frozenset[str]
) -> tuple[PrunableLayer, ...]:
    spared = heads if config.chosen.granularity.whole_rows else ()
    if config.chosen.granularity.whole_heads:
        return with_heads(layers, "`hybrid` can't have heads")
    return tuple(layer for layer in layers if layer.name not in spared)


def phase_faults(
    phases: Iterable[Phase], exempt: frozenset[str], heads: frozenset[str]
) -> list[str]:
    """Return what is wrong with the phases for their layers, each fault once."""
    faults: dict[str, None] = {}
    for phase in phases:
        outside = exempt | heads if phase.config.chosen.granularity.whole_rows else exempt
        budgets = _budgets_of(phase.config, phase.layers)
        for fault in faults_with(phase.config, phase.layers, budgets, outside):
            kind = phase.config.granularity
            faults[_renamed(fault, kind) if phase.in_turn else fault] = None
    return list(faults)


def _renamed(fault: str, kind: str) -> str:
    field = fault.removeprefix("`").partition("`")[0]
    return (
        fault.replace(f"`{field}`", f"`{field_of(field, kind)}`", 1) if "spars" in field else fault
    )
