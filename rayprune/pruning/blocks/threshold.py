"""``sparsity``, ``threshold`` and what else gives a target: one of them, and no more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rayprune.pruning.blocks.groups import own_blocks
from rayprune.pruning.checks import Faults, is_number, must, unknown_keys
from rayprune.pruning.component import Chosen
from rayprune.pruning.distributions import is_even

KINDS: Final = ("absolute", "percentile", "mean_fraction")
OF_LOWEST: Final = "of_lowest"


def faults(field: str, value: Any) -> Faults:
    """Yield what is wrong with ``threshold`` by itself."""
    if value is None:
        return
    kinds = [key for key in value if key in KINDS] if isinstance(value, Mapping) else []
    if len(kinds) != 1:
        forms = "{absolute: x}, {percentile: p} or {mean_fraction: f}"
        yield must(field, f"one of {forms}", value)
        return
    known = [kinds[0], OF_LOWEST] if kinds[0] == "mean_fraction" else kinds
    for key, number in value.items():
        if key in known:
            yield from _number_faults(f"{field}.{key}", key, number)
        else:
            yield from unknown_keys(field, {key: number}, known)


def _number_faults(field: str, key: str, number: Any) -> Faults:
    if not is_number(number):
        yield must(field, "a number", number)
    elif key == "percentile" and not 0 < number < 100:
        yield must(field, "in (0, 100)", number)  # the 100th would prune everything
    elif key == OF_LOWEST and not 0 < number <= 100:
        yield must(field, "in (0, 100]", number)
    elif number < 0 or number == float("inf"):
        yield must(field, "finite and at least 0", number)


def schedule_conflicts(prefix: str, chosen: Chosen) -> Faults:
    """Yield the fault of a threshold beside a schedule that goes from sparsity to sparsity."""
    if chosen.schedule.finds_sparsity and chosen.values.get("threshold") is not None:
        yield (
            f"`{prefix}threshold` can't be used with a {chosen.schedule_block['kind']} schedule, "
            f"which steps from sparsity to sparsity. Leave it out; `{prefix}sparsity` is an upper "
            "bound there."
        )


def conflicts(prefix: str, chosen: Chosen) -> Faults:
    """Yield the fault of no target, or of more than one."""
    values = chosen.values
    groups, distribution = values.get("groups") or {}, values.get("distribution", "uniform")
    if values.get("threshold") is None:
        told = values.get("sparsity") is not None or groups or isinstance(distribution, Mapping)
        granularity = chosen.granularity
        implied = granularity.in_turn or granularity.implied_sparsity is not None
        if not told and not implied and not chosen.schedule.finds_sparsity:
            yield f"One of `{prefix}sparsity` and `{prefix}threshold` must be given."
        return
    if values.get("sparsity") is not None:
        yield f"Only one of `{prefix}sparsity` and `{prefix}threshold` can be given, not both."
    if groups and not (isinstance(groups, Mapping) and groups.keys() <= own_blocks(groups).keys()):
        yield f"`{prefix}groups` gives sparsities, so `{prefix}threshold` must be left out."
    if not is_even(distribution):
        yield (
            f"`{prefix}distribution` must be 'uniform' or 'global' with a threshold, "
            f"but is {distribution!r}."
        )
