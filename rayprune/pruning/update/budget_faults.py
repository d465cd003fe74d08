"""Faults of budgets: names that match no layer, and targets that are out of reach."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterable, Sequence

from rayprune.errors import ConfigError, did_you_mean
from rayprune.pruning.checks import choice_fault, listed
from rayprune.pruning.config import PruningConfig
from rayprune.pruning.granularity import granularity_of
from rayprune.pruning.layers.prunable import PrunableLayer, protected_names
from rayprune.pruning.masks.topk import kept_count
from rayprune.pruning.update.budgets import Budget, counts_of


def faults_with(
    config: PruningConfig,
    layers: Sequence[PrunableLayer],
    budgets: Iterable[Budget],
    exempt: Iterable[str] = (),
) -> list[str]:
    """Return what is wrong with a config for these very layers.

    Args:
        config: sound in itself.
        layers: the prunable layers, protected ones included.
        budgets: that they are grouped into.
        exempt: names of maskable layers that are not prunable.
    """
    faults = _name_faults(config, layers, frozenset(exempt))
    for budget in budgets:
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
    total, free = counts_of(granularity, budget)
    if total - kept_count(total, granularity.share(budget.target)) <= free:
        return []
    verb = "is" if len(budget.protected) == 1 else "are"
    reachable = math.floor(1000 * free / total) / 1000
    return [
        f"`{budget.field}` {budget.target} cannot be met: {listed(budget.protected)} {verb} "
        f"protected, so at most {reachable} is reachable. Lower it, or unprotect a layer."
    ]


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
