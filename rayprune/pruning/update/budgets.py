"""Budgets: which layers share a target, how it splits over them, and what is out of reach."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from rayprune.errors import ConfigError, did_you_mean
from rayprune.pruning.checks import choice_fault, listed
from rayprune.pruning.config import PruningConfig
from rayprune.pruning.distributions import DISTRIBUTIONS, Shape
from rayprune.pruning.granularity import Granularity, Part, granularity_of
from rayprune.pruning.layers.prunable import PrunableLayer, protected_names
from rayprune.pruning.masks.topk import kept_count

MOST = 0.999
"""The sparsity at which a search for the sparsest policy ends if no target bounds it."""

Ramp = Callable[[float], float]
"""A target -> the sparsity that is due at this moment."""


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
    target = MOST if config.unbounded else config.target
    fields.append(("pruning.sparsity", target, rest))
    budgets = [
        Budget(field, target, tuple(members), protected_names(members, config.protect))
        for field, target, members in fields
        if members
    ]
    return [_within_reach(config, budget) for budget in budgets] if config.unbounded else budgets


def highest_target(config: PruningConfig, budgets: Iterable[Budget]) -> float:
    """Return the sparsity at which no layer and no budget has anything left to prune."""
    targets = [budget.target or 0.0 for budget in budgets]
    if not isinstance(config.distribution, str):
        targets += config.distribution.values()
    return max(targets)


def _within_reach(config: PruningConfig, budget: Budget) -> Budget:
    """Lower the bound of a search that was given none to what protected layers leave."""
    if budget.field != "pruning.sparsity":
        return budget
    total, free = _counts(granularity_of(config.granularity), budget)
    return replace(budget, target=min(MOST, free / total))


def scopes_of(config: PruningConfig, budget: Budget, at: Ramp) -> list[Scope]:
    """Split a budget's sparsity into scopes with exact counts.

    Args:
        config: gives the distribution and the granularity.
        budget: the layers and their target.
        at: turns a target into the sparsity that is due at this moment.
    """
    granularity = granularity_of(config.granularity)
    sparsity = granularity.share(at(budget.target or 0.0))
    shapes: dict[str, Shape] = {}
    split: Mapping[str, float] | None = None
    if not granularity.spans_layers:
        shapes = _shapes(granularity, budget.layers)
        given, rest = config.distribution, budget.target or 0.0
        if isinstance(given, str):
            split = _layer_sparsities(given, shapes, sparsity, budget.protected)
        else:
            split = {name: at(given.get(name, rest)) for name in shapes}
    if split is None:
        total, free = _counts(granularity, budget)
        keep = free - (total - kept_count(total, sparsity))
        return [_scope(granularity, budget, budget.free, keep)]
    return [
        _scope(
            granularity, budget, [layer], kept_count(shapes[layer.name].count, split[layer.name])
        )
        for layer in budget.free
    ]


def threshold_scopes(config: PruningConfig, budget: Budget) -> list[Scope]:
    """Split a budget that has a threshold into scopes; how many stay is open."""
    granularity = granularity_of(config.granularity)
    name = config.distribution
    one_scope = isinstance(name, str) and DISTRIBUTIONS[name].one_scope
    if one_scope or granularity.spans_layers:
        return [_scope(granularity, budget, budget.free, 0)]
    return [_scope(granularity, budget, [layer], 0) for layer in budget.free]


def _scope(
    granularity: Granularity, budget: Budget, layers: Iterable[PrunableLayer], keep: int
) -> Scope:
    return Scope(granularity.parts(layers), keep, budget.called)


def _shapes(granularity: Granularity, layers: Iterable[PrunableLayer]) -> dict[str, Shape]:
    return {layer.name: Shape(layer.dims, granularity.count([layer])) for layer in layers}


def _layer_sparsities(
    name: str, shapes: Mapping[str, Shape], sparsity: float, protected: frozenset[str]
) -> Mapping[str, float] | None:
    split = DISTRIBUTIONS[name](shapes, sparsity, protected)
    return None if split is None else _checked(name, split, shapes)


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


def protect_faults(
    config: PruningConfig, names: Sequence[str], exempt: Iterable[str] = ()
) -> list[str]:
    """Return a fault for each protecting pattern that matches none of these layers.

    Args:
        config: has the patterns.
        names: of the prunable layers.
        exempt: of those that are not prunable.
    """
    return [
        f"`pruning.protect` pattern {pattern!r} matches no layer."
        f"{did_you_mean(pattern, names) or f' Layers are {list(names)}.'}"
        for pattern in config.protect
        if not any(fnmatch.fnmatchcase(name, pattern) for name in [*names, *exempt])
    ]


def reach_faults(config: PruningConfig, budget: Budget) -> list[str]:
    """Return a fault if the protected layers put a budget's target out of reach."""
    if budget.target is None:
        return []
    granularity = granularity_of(config.granularity)
    total, free = _counts(granularity, budget)
    if total - kept_count(total, granularity.share(budget.target)) <= free:
        return []
    verb = "is" if len(budget.protected) == 1 else "are"
    reachable = math.floor(1000 * free / total) / 1000
    return [
        f"`{budget.field}` {budget.target} cannot be met: {listed(budget.protected)} {verb} "
        f"protected, so at most {reachable} is reachable. Lower it, or unprotect a layer."
    ]


def _counts(granularity: Granularity, budget: Budget) -> tuple[int, int]:
    """Return how many compete in a budget, and how many of them are not protected."""
    return granularity.count(budget.layers), granularity.count(budget.free)


def _name_faults(
    config: PruningConfig, layers: Sequence[PrunableLayer], exempt: frozenset[str]
) -> list[str]:
    names = [layer.name for layer in layers]
    groups = sorted({layer.group for layer in layers})
    faults = protect_faults(config, names, exempt)
    faults += [choice_fault("pruning.groups", x, groups) for x in config.groups if x not in groups]
    if isinstance(config.distribution, str):
        return faults
    protected = protected_names(layers, config.protect)
    for name, sparsity in config.distribution.items():
        if name in exempt:
            faults.append(
                f"`pruning.distribution.{name}` can't be given: granularity "
                f"{config.granularity!r} removes nothing of {name!r}. Leave it out."
            )
        elif name not in names:
            faults.append(choice_fault("pruning.distribution", name, names))
        elif name in protected and sparsity > 0:
            faults.append(f"`pruning.distribution.{name}` is {sparsity}, but it is protected.")
    return faults
