"""Budgets: layers that share a target, and how it splits over them into scopes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from rayprune.errors import ConfigError
from rayprune.pruning.config import PruningConfig
from rayprune.pruning.distributions import DISTRIBUTIONS, Shape
from rayprune.pruning.granularity import Granularity, Part, granularity_of
from rayprune.pruning.layers.prunable import PrunableLayer
from rayprune.pruning.masks.topk import kept_count

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


def highest_target(config: PruningConfig, budgets: Iterable[Budget]) -> float:
    """Return the sparsity at which no layer and no budget has anything left to prune."""
    targets = [budget.target or 0.0 for budget in budgets]
    if not isinstance(config.distribution, str):
        targets += config.distribution.values()
    return max(targets)


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
        total, free = counts_of(granularity, budget)
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


def counts_of(granularity: Granularity, budget: Budget) -> tuple[int, int]:
    """Return how many units or weights compete in a budget, and how many of them are free."""
    return granularity.count(budget.layers), granularity.count(budget.free)
