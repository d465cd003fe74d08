"""What a pruning block may say: each field's check, and the choices that don't go together.

Both in the order in which a user reads the faults.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from rayprune.errors import unknown_key
from rayprune.pruning.blocks import (
    distillation,
    evidence,
    groups,
    live_compaction,
    on_clone,
    operation,
    plasticity,
    protect,
    threshold,
    trust_region,
)
from rayprune.pruning.checks import Check, Faults, choice, count, optional, sparsity, switch
from rayprune.pruning.component import Chosen, CriterionRules, GranularityRules
from rayprune.pruning.criteria import CRITERIA, find_criterion
from rayprune.pruning.criteria.base import return_conflicts
from rayprune.pruning.distributions import distribution_faults
from rayprune.pruning.granularity import POOLINGS, find_granularity, granularity_faults
from rayprune.pruning.granularity.hybrid import hybrid_conflicts, hybrid_faults
from rayprune.pruning.penalties import penalty_conflicts
from rayprune.pruning.recipes import RECIPES, recipe_conflicts
from rayprune.pruning.remedies import chosen_remedies, remedy_faults
from rayprune.pruning.schedules import schedule_faults, schedule_of


def chosen_of(values: Mapping[str, Any]) -> Chosen:
    """Return the choices of a config's fields, which may be wrong in themselves."""
    return Chosen(
        values=values,
        criterion=find_criterion(values.get("criterion", "l1")) or CriterionRules(),
        granularity=find_granularity(values.get("granularity", "weight")) or GranularityRules(),
        schedule=schedule_of(values.get("schedule")),
    )


def faults_of(values: object, prefix: str, fields: Sequence[str]) -> list[str]:
    """Return the faults of a mapping that shall become a `PruningConfig`.

    Args:
        values: anything; only a mapping can be right.
        prefix: what the field names start with in the messages, such as ``pruning.``.
        fields: the names that are known.
    """
    if not isinstance(values, Mapping):
        return [f"`{prefix.rstrip('.') or 'pruning'}` must be a mapping, but is {values!r}."]
    faults = [unknown_key(f"{prefix}{key}", fields, key) for key in values if key not in fields]
    for name, check in _CHECKS.items():
        if name in values:
            faults.extend(check(f"{prefix}{name}", values[name]))
    faults.extend(_conflicts(prefix, values))
    faults.extend(groups.conflicts(prefix, chosen_of(values)))
    for name, own in groups.own_blocks(values.get("groups")).items():
        naming = groups.Naming(prefix, name, values, own)
        faults.extend(naming.told(_group_faults(naming.prefix, values, own), known=faults))
    return faults


def _conflicts(prefix: str, values: Mapping[str, Any]) -> Faults:
    chosen = chosen_of(values)
    for conflicts in _CONFLICTS:
        yield from conflicts(prefix, chosen)


def _group_faults(prefix: str, values: Mapping[str, Any], own: Mapping[str, Any]) -> list[str]:
    """Return the faults of a group's own fields, and of what doesn't go together in its config."""
    merged = groups.fields_of(values, own)
    faults = [
        fault
        for name, check in _CHECKS.items()
        if name in own and name in groups.OWN
        for fault in check(f"{prefix}{name}", merged[name])
    ]
    if "criterion" in own and isinstance(merged.get("schedule"), Mapping):
        # Those that a gate tries in turn take the place of the whole config's, not of the group's.
        merged["schedule"] = {k: v for k, v in merged["schedule"].items() if k != "criteria"}
    return [*faults, *_conflicts(prefix, merged)]


def _horizon(field: str, value: Any) -> Faults:
    yield from count(field, value, unit="(env steps)")


_CHECKS: Final[Mapping[str, Check]] = {
    "recipe": optional(choice(RECIPES)),
    "sparsity": optional(sparsity),
    "threshold": threshold.faults,
    "criterion": choice(CRITERIA),
    "granularity": granularity_faults,
    "hybrid": hybrid_faults,
    "pooling": choice(POOLINGS),
    "distribution": distribution_faults,
    "operation": operation.faults,
    "schedule": schedule_faults,
    "max_kl": trust_region.faults,
    "max_value_change": trust_region.faults,
    "protect": protect.faults,
    "groups": groups.faults,
    "frozen": choice(["keep", "prune"]),
    "on_clone": on_clone.faults,
    "compact_every": live_compaction.faults,
    "evidence": evidence.faults,
    "distillation": distillation.faults,
    "plasticity": plasticity.faults,
    "fused_optimizer": switch,
    "horizon": optional(_horizon),
}


def _criterion(prefix: str, chosen: Chosen) -> Faults:
    yield from chosen.criterion.conflicts(prefix, chosen)


def _schedule(prefix: str, chosen: Chosen) -> Faults:
    yield from chosen.schedule.conflicts(prefix, chosen)


def _granularity(prefix: str, chosen: Chosen) -> Faults:
    yield from chosen.granularity.conflicts(prefix, chosen)


def _remedies(prefix: str, chosen: Chosen) -> Faults:
    yield from remedy_faults(prefix, chosen.values)
    remedies = chosen.values.get("remedies")
    for _, remedy in chosen_remedies(remedies if isinstance(remedies, Mapping) else {}):
        yield from remedy.conflicts(prefix, chosen)


def _other_criteria(prefix: str, chosen: Chosen) -> Faults:
    """Ask the criteria that a schedule tries in turn, too."""
    for name in dict.fromkeys(chosen.schedule.criteria_in(chosen.schedule_block)):
        if name != chosen.criterion_name:
            other = chosen_of({**chosen.values, "criterion": name})
            yield from other.criterion.conflicts(prefix, other)


_CONFLICTS: Final[tuple[Callable[[str, Chosen], Faults], ...]] = (
    recipe_conflicts,
    _criterion,
    _schedule,
    on_clone.conflicts,
    penalty_conflicts,
    _remedies,
    live_compaction.conflicts,
    operation.conflicts,
    _other_criteria,
    threshold.schedule_conflicts,
    distillation.conflicts,
    _granularity,
    return_conflicts,
    hybrid_conflicts,
    threshold.conflicts,
    trust_region.conflicts,
)
