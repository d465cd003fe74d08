"""Budgets: which layers share a target, how it splits over them, and what is out of reach."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import nn

from rayprune.errors import ConfigError, did_you_mean
from rayprune.pruning.attach import join
from rayprune.pruning.config import PruningConfig
from rayprune.pruning.distributions import DISTRIBUTIONS, Shape
from rayprune.pruning.granularity import Part, matrix_shape, parts_of
from rayprune.pruning.layers import MaskedLayer, prunable_parameters
from rayprune.pruning.masks import kept_count
from rayprune.pruning.registry import choice_fault

MOST = 0.999
"""The sparsity at which a search for the sparsest policy ends if no target bounds it."""

Ramp = Callable[[float], float]
"""A target -> the sparsity that is due at this moment."""


@dataclass(frozen=True, slots=True)
class PrunableLayer:
    """A maskable layer with its place in the module."""

    name: str
    module: MaskedLayer
    group: str

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """The prunable parameters by their name in the layer."""
        return prunable_parameters(self.module)

    def full_name(self, parameter: str) -> str:
        """Return a parameter's name in the whole module."""
        return join(self.name, parameter)

    def parts(self, config: PruningConfig) -> list[Part]:
        """Split the layer into what competes, with the parameters' full names."""
        named = {self.full_name(name): weight for name, weight in self.parameters.items()}
        return parts_of(self.module, named, config.granularity)

    def shape(self, config: PruningConfig) -> Shape:
        """Return what a distribution knows of the layer."""
        count = sum(part.count for part in self.parts(config))
        return Shape(matrix_shape(self.parameters), count)


@dataclass(frozen=True, slots=True)
class Budget:
    """Layers with one target: a group that the config names, or all the others together."""

    field: str
    """The config's field that sets the target, for messages."""
    target: float | None
    """The sparsity at the end; None with a threshold."""
    layers: tuple[PrunableLayer, ...]
    protected: frozenset[str]

    @property
    def called(self) -> str:
        """What the budget is of, in words."""
        groups = sorted({layer.group for layer in self.layers})
        return f"group {groups[0]!r}" if len(groups) == 1 else f"the groups {groups}"

    @property
    def free(self) -> list[PrunableLayer]:
        """The layers that are not protected."""
        return [layer for layer in self.layers if layer.name not in self.protected]


@dataclass(frozen=True, slots=True)
class Scope:
    """Parts that compete, and how many of their weights (or units) stay."""

    parts: tuple[Part, ...]
    keep: int
    called: str = "the module"
    """What it belongs to, in words, for messages."""


def budgets_of(config: PruningConfig, layers: Iterable[PrunableLayer]) -> list[Budget]:
    """Group the layers into budgets.

    Args:
        config: names the groups with a budget of their own.
        layers: every layer that can be pruned or is protected.
    """
    layers = list(layers)
    named = {group: spec["sparsity"] for group, spec in config.groups.items()}
    fields: list[tuple[str, float | None, list[PrunableLayer]]] = [
        (f"pruning.groups.{group}.sparsity", sparsity, [x for x in layers if x.group == group])
        for group, sparsity in named.items()
    ]
    target = config.sparsity
    if target is None and config.threshold is None:
        target = MOST if config.gated else 0.0
    fields.append(("pruning.sparsity", target, [x for x in layers if x.group not in named]))
    budgets = [
        Budget(field, target, tuple(members), protected_names(config, members))
        for field, target, members in fields
        if members
    ]
    return [_within_reach(config, budget) for budget in budgets] if config.gated else budgets


def highest_target(config: PruningConfig, layers: Iterable[PrunableLayer]) -> float:
    """Return the sparsity at which no layer and no budget has anything left to prune."""
    targets = [budget.target or 0.0 for budget in budgets_of(config, layers)]
    if not isinstance(config.distribution, str):
        targets += config.distribution.values()
    return max(targets)


def _within_reach(config: PruningConfig, budget: Budget) -> Budget:
    """Lower the bound of a search that was given none to what protected layers leave."""
    if config.sparsity is not None or budget.field != "pruning.sparsity":
        return budget
    counts = {layer.name: layer.shape(config).count for layer in budget.layers}
    held = sum(counts[name] for name in budget.protected)
    return replace(budget, target=min(MOST, 1.0 - held / sum(counts.values())))


def protected_names(config: PruningConfig, layers: Iterable[PrunableLayer]) -> frozenset[str]:
    """Return the names of the layers that a pattern of ``protect`` matches."""
    return frozenset(
        layer.name
        for layer in layers
        if any(fnmatch.fnmatchcase(layer.name, pattern) for pattern in config.protect)
    )


def scopes_of(config: PruningConfig, budget: Budget, at: Ramp) -> list[Scope]:
    """Split a budget's sparsity into scopes with exact counts.

    Args:
        config: gives the distribution and the granularity.
        budget: the layers and their target.
        at: turns a target into the sparsity that is due at this moment.
    """
    shapes = {layer.name: layer.shape(config) for layer in budget.layers}
    sparsity = at(budget.target or 0.0)
    split = _layer_sparsities(config, budget, shapes, at)
    if split is None:
        total = sum(shape.count for shape in shapes.values())
        free = sum(shapes[layer.name].count for layer in budget.free)
        return [_scope(config, budget, budget.free, free - (total - kept_count(total, sparsity)))]
    return [
        _scope(config, budget, [layer], kept_count(shapes[layer.name].count, split[layer.name]))
        for layer in budget.free
    ]


def threshold_scopes(config: PruningConfig, budget: Budget) -> list[Scope]:
    """Split a budget that has a threshold into scopes; how many stay is open."""
    if config.distribution == "global":
        return [_scope(config, budget, budget.free, 0)]
    return [_scope(config, budget, [layer], 0) for layer in budget.free]


def _scope(
    config: PruningConfig, budget: Budget, layers: Iterable[PrunableLayer], keep: int
) -> Scope:
    parts = tuple(part for layer in layers for part in layer.parts(config))
    return Scope(parts, keep, budget.called)


def _layer_sparsities(
    config: PruningConfig, budget: Budget, shapes: Mapping[str, Shape], at: Ramp
) -> Mapping[str, float] | None:
    target = budget.target or 0.0
    if not isinstance(config.distribution, str):
        return {name: at(config.distribution.get(name, target)) for name in shapes}
    split = DISTRIBUTIONS[config.distribution](shapes, at(target), budget.protected)
    return None if split is None else _checked(config.distribution, split, shapes)


def _checked(
    name: str, split: Mapping[str, float], shapes: Mapping[str, Shape]
) -> Mapping[str, float]:
    faults = [
        f"Distribution {name!r} must give every layer a sparsity in [0, 1], "
        f"but gives {layer!r} {split.get(layer)!r}."
        for layer in shapes
        if not 0.0 <= split.get(layer, -1.0) <= 1.0
    ]
    if faults:
        raise ConfigError(faults)
    return split


def faults_with(
    config: PruningConfig, layers: Sequence[PrunableLayer], exempt: Iterable[str] = ()
) -> list[str]:
    """Return what is wrong with a config for these very layers.

    Args:
        config: sound in itself.
        layers: the prunable layers, protected ones included.
        exempt: names of maskable layers that are not prunable.
    """
    faults = _name_faults(config, layers, frozenset(exempt))
    for budget in budgets_of(config, layers):
        if budget.target is not None and isinstance(config.distribution, str):
            faults += reach_faults(config, budget)
    try:
        config.build_schedule(0.0)
    except ConfigError as error:
        faults += error.faults
    return faults


def reach_faults(config: PruningConfig, budget: Budget) -> list[str]:
    """Return a fault if the protected layers put a budget's target out of reach."""
    counts = {layer.name: layer.shape(config).count for layer in budget.layers}
    total = sum(counts.values())
    free = total - sum(counts[name] for name in budget.protected)
    if budget.target is None or total - kept_count(total, budget.target) <= free:
        return []
    verb = "is" if len(budget.protected) == 1 else "are"
    reachable = math.floor(1000 * free / total) / 1000
    return [
        f"`{budget.field}` {budget.target} cannot be met: {_listed(budget.protected)} {verb} "
        f"protected, so at most {reachable} is reachable. Lower it, or unprotect a layer."
    ]


def _name_faults(
    config: PruningConfig, layers: Sequence[PrunableLayer], exempt: frozenset[str]
) -> list[str]:
    names = [layer.name for layer in layers]
    groups = sorted({layer.group for layer in layers})
    faults = [
        f"`pruning.protect` pattern {pattern!r} matches no layer."
        f"{did_you_mean(pattern, names) or f' Layers are {names}.'}"
        for pattern in config.protect
        if not any(fnmatch.fnmatchcase(name, pattern) for name in [*names, *exempt])
    ]
    faults += [choice_fault("pruning.groups", x, groups) for x in config.groups if x not in groups]
    if isinstance(config.distribution, str):
        return faults
    protected = protected_names(config, layers)
    for name, sparsity in config.distribution.items():
        if name not in names:
            faults.append(choice_fault("pruning.distribution", name, names))
        elif name in protected and sparsity > 0:
            faults.append(f"`pruning.distribution.{name}` is {sparsity}, but it is protected.")
    return faults


def _listed(names: Iterable[str], most: int = 5) -> str:
    """List names in words.

    >>> _listed(["a", "b"]), _listed("abcdefg")
    ("'a' and 'b'", "'a', 'b', 'c', 'd', 'e' and 2 more")
    """
    quoted = [repr(name) for name in sorted(names)]
    if len(quoted) > most:
        quoted = [*quoted[:most], f"{len(quoted) - most} more"]
    return " and ".join(filter(None, [", ".join(quoted[:-1]), quoted[-1]]))
