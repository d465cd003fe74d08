"""Phases: what a mask update decides in turn. Hybrid pruning has two, all else has one."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rayprune.errors import ConfigError
from rayprune.pruning.config import PruningConfig
from rayprune.pruning.criteria import scores_units
from rayprune.pruning.granularity import parse
from rayprune.pruning.layers.prunable import PrunableLayer
from rayprune.pruning.update.budgets import (
    Budget,
    budgets_of,
    faults_with,
    reach_faults,
)

HYBRID = ("neuron", "weight")


@dataclass(frozen=True, slots=True)
class Phase:
    """One granularity over the layers that it can prune."""

    config: PruningConfig
    """The whole config, or what hybrid pruning makes of it for one of its granularities."""
    layers: tuple[PrunableLayer, ...]
    hybrid: bool = False

    @property
    def budgets(self) -> list[Budget]:
        """The budgets, with their fields named as the user's config has them."""
        budgets = budgets_of(self.config, self.layers)
        if not self.hybrid:
            return budgets
        kind = self.config.granularity
        return [dataclasses.replace(b, field=_field(b.field, kind)) for b in budgets]

    def by_chance(self) -> Phase:
        """Return the same phase with random scores."""
        return dataclasses.replace(self, config=self.config.replace(criterion="random"))

    def retargeted(self, sparsity: float) -> list[Budget]:
        """Return the budgets with one target for all.

        Raises:
            ConfigError: out of range or reach, or a granularity whose targets are not one number.
        """
        faults = PruningConfig.faults_of({"sparsity": sparsity}, prefix="")
        pattern = parse(self.config.granularity)
        if self.hybrid:
            faults.append("`sparsity` must be left out, since `hybrid` names two.")
        if not faults and pattern is not None and sparsity > pattern.sparsity:
            faults.append(
                f"`sparsity` must be at most {pattern.sparsity:g}, which granularity "
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
    if config.granularity != "hybrid":
        return [Phase(config, tuple(layers))]
    units = tuple(layer for layer in layers if layer.name not in heads)
    of_kind = {"neuron": units, "weight": tuple(layers)}
    return [Phase(_single(config, kind), of_kind[kind], hybrid=True) for kind in HYBRID]


def phase_faults(
    phases: Iterable[Phase], exempt: frozenset[str], heads: frozenset[str]
) -> list[str]:
    """Return what is wrong with the phases for their layers, each fault once."""
    faults: dict[str, None] = {}
    for phase in phases:
        outside = exempt | heads if phase.config.granularity == "neuron" else exempt
        for fault in faults_with(phase.config, phase.layers, outside):
            kind = phase.config.granularity
            faults[_renamed(fault, kind) if phase.hybrid else fault] = None
    return list(faults)


def _single(config: PruningConfig, kind: str) -> PruningConfig:
    assert config.hybrid is not None
    dense = config.sparsity == 0
    # A criterion of units says nothing of the weights that are left in one.
    by_units = kind == "weight" and scores_units(config.criterion)
    return config.replace(
        granularity=kind,
        criterion="l1" if by_units else config.criterion,
        hybrid=None,
        penalty=None,  # the whole config's, whatever the phases are
        compact_every=None,  # likewise
        sparsity=0.0 if dense else config.hybrid[kind],
        groups={group: {"sparsity": spec[kind]} for group, spec in config.groups.items()},
    )


def _field(field: str, kind: str) -> str:
    """Name a target as a hybrid config does.

    >>> _field("pruning.sparsity", "neuron"), _field("pruning.groups.policy.sparsity", "weight")
    ('pruning.hybrid.neuron', 'pruning.groups.policy.weight')
    """
    if field == "pruning.sparsity":
        return f"pruning.hybrid.{kind}"
    return f"{field.removesuffix('sparsity')}{kind}"


def _renamed(fault: str, kind: str) -> str:
    field = fault.removeprefix("`").partition("`")[0]
    return fault.replace(f"`{field}`", f"`{_field(field, kind)}`", 1) if "spars" in field else fault
