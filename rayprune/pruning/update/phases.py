"""Phases: what a mask update decides in turn. Hybrid pruning has two, all else has one."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rayprune.errors import ConfigError
from rayprune.pruning.config import PruningConfig
from rayprune.pruning.granularity.head import with_heads
from rayprune.pruning.granularity.hybrid import field_of, turns
from rayprune.pruning.layers.prunable import PrunableLayer
from rayprune.pruning.update.budgets import (
    Budget,
    budgets_of,
    faults_with,
    reach_faults,
)


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
        budgets = budgets_of(self.config, self.layers)
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
    singles = [config.phase(**changes) for changes in turns(config.chosen)]
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
        for fault in faults_with(phase.config, phase.layers, outside):
            kind = phase.config.granularity
            faults[_renamed(fault, kind) if phase.in_turn else fault] = None
    return list(faults)


def _renamed(fault: str, kind: str) -> str:
    field = fault.removeprefix("`").partition("`")[0]
    return (
        fault.replace(f"`{field}`", f"`{field_of(field, kind)}`", 1) if "spars" in field else fault
    )
