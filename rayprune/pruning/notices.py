"""What a Pruner tells people, each thing once, where no driver does."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from rayprune.pruning.arguments import awaited, check_gate
from rayprune.pruning.checks import listed
from rayprune.pruning.config import DEFAULT_HORIZON, PruningConfig
from rayprune.pruning.granularity import granularity_of
from rayprune.pruning.layers.prunable import PrunableLayer
from rayprune.pruning.masks.topk import kept_count
from rayprune.pruning.reports import empty_line
from rayprune.pruning.update.budgets import Budget, counts_of
from rayprune.pruning.update.progress import Eligible, standing_units

logger = logging.getLogger("rayprune.pruning.pruner")

_FINE = 0.1
"""How far rounding may be from a target before it is told."""


class Notices:
    """Warnings of one Pruner.

    Args:
        driven: whether a driver tells them, and posts what a schedule waits for.
    """

    def __init__(self, *, driven: bool) -> None:
        self._driven = driven
        self._told_of_horizon = self._told_to_post = self._told_of_rounding = False
        self._told_of_sizes = False
        self._told_empty: set[str] = set()
        self._fault = ""

    def check_driver(self, config: PruningConfig) -> None:
        """Don't wait in silence for what nobody may post.

        Raises:
            ConfigError: the schedule is gated, and there is no driver.
        """
        if self._driven:
            return
        check_gate(config)
        waits = awaited(config)
        if waits is not None and not self._told_to_post:
            self._told_to_post = True
            logger.warning(waits)

    def tell_of_horizon(self, config: PruningConfig) -> None:
        """Say which horizon is taken where none was given."""
        if config.needs_horizon and not self._told_of_horizon:
            self._told_of_horizon = True
            logger.warning(
                "The schedule's `begin` and `end` are fractions, but `horizon` was not given: "
                "taking %s env steps. Pass PruningConfig(horizon=...).",
                f"{DEFAULT_HORIZON:_}",
            )

    def tell_of_uncovered(self, line: str | None) -> None:
        """Say what the sparsity is not of."""
        if line is not None and not self._driven:
            logger.warning("%s%s", line[0].upper(), line[1:])

    def tell_of_emptied(self, layers: Iterable[str]) -> None:
        """Say of which layers nothing is left."""
        new = [name for name in layers if name not in self._told_empty]
        if new and not self._driven:
            self._told_empty.update(new)
            logger.warning(empty_line(new))

    def tell_of_rounding(self, config: PruningConfig, budgets: Iterable[Budget]) -> None:
        """Say where few units can't be cut as finely as asked: a third of two is one, a half."""
        if not granularity_of(config.granularity).spans_layers or self._told_of_rounding:
            return
        for budget in budgets:
            total, _ = counts_of(granularity_of(config.granularity), budget)
            target = budget.target or 0.0
            share = (total - kept_count(total, target)) / total if total else target
            if abs(share - target) > _FINE:
                self._told_of_rounding = True
                logger.warning(
                    "`%s` %g of %d units of granularity %r is rounded to %.0f %%, by number and "
                    "not by size. Protect layers that shall stay, or give groups targets of "
                    "their own.",
                    *(budget.field, target, total, config.granularity, 100 * share),
                )

    def tell_of_sizes(
        self, config: PruningConfig, budgets: Iterable[Budget], eligible: Eligible
    ) -> None:
        """Say where the units that went are far more or less of the weights than of the units.

        Whole layers are unlike in size: one of three blocks may hold most of the weights, and be
        all that its group has.
        """
        if not granularity_of(config.granularity).becomes_identity or self._told_of_sizes:
            return
        for budget in budgets:
            what = _unlike_target(config, budget, eligible)
            if what:
                self._told_of_sizes = True
                logger.warning(
                    "`%s` %g counts units of granularity %r, whatever their size: %s. Protect "
                    "layers that shall stay, or give groups targets of their own.",
                    *(budget.field, budget.target, config.granularity, what),
                )

    def tell_of_fault(self, fault: str) -> None:
        """Say why nothing more is pruned; a driver's runs have no other place for it either."""
        if fault and fault != self._fault:
            logger.warning("Nothing more is pruned while it is so: %s", fault)
        self._fault = fault


def _unlike_target(config: PruningConfig, budget: Budget, eligible: Eligible) -> str:
    """Say which whole layers went, if they are far from the target by weights or all of a group."""
    standing = {unit.name for unit in standing_units(budget.layers, eligible)}
    gone = [x for x in budget.layers if x.unit is not None and x.unit.name not in standing]
    if not gone or budget.target is None:
        return ""
    names = list(dict.fromkeys(x.unit.name for x in gone if x.unit is not None))
    share = _weights(gone) / _weights(budget.layers)
    total, _ = counts_of(granularity_of(config.granularity), budget)
    complete = len(names) >= total - kept_count(total, budget.target)
    bare = {x.group for x in gone} - {x.group for x in budget.layers if x not in gone}
    far = share - budget.target > _FINE or (complete and budget.target - share > _FINE)
    if not far and not bare:
        return ""
    left = "".join(f"; group {group!r} has no unit left" for group in sorted(bare))
    return f"{listed(names)}, {len(names)} of {total}, had {share:.0%} of their weights{left}"


def _weights(layers: Iterable[PrunableLayer]) -> int:
    return sum(weight.numel() for layer in layers for weight in layer.parameters.values())
