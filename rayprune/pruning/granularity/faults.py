"""Faults of the fields that say what is removed together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rayprune.pruning.checks import choice_fault
from rayprune.pruning.distributions import is_even
from rayprune.pruning.granularity import GRANULARITIES, find_granularity

Faults = Iterator[str]
Check = Callable[[str, Any], Faults]


def granularity(field: str, value: Any) -> Faults:
    """Yield the fault of a name that is no granularity."""
    if find_granularity(value) is None:
        kinds = GRANULARITIES.values()
        known = [*GRANULARITIES, *(alias for kind in kinds for alias in kind.aliases)]
        forms = [kind.form for kind in kinds if kind.form]
        yield " ".join([choice_fault(field, value, known), *forms])


def hybrid(field: str, value: Any, sparsity: Check) -> Faults:
    """Yield the faults of `hybrid`.

    Args:
        field: its name.
        value: anything.
        sparsity: yields the faults of a sparsity.
    """
    if value is None:
        return
    if not isinstance(value, Mapping) or set(value) != {"neuron", "weight"}:
        yield f"`{field}` must be {{neuron: s, weight: s}}, but is {value!r}."
        return
    faults = [fault for key in value for fault in sparsity(f"{field}.{key}", value[key])]
    yield from faults
    if not faults and value["weight"] < value["neuron"]:
        yield (
            f"`{field}.weight` must not be less than `neuron` ({value['neuron']}), but is "
            f"{value['weight']}: it counts the weights of pruned units too."
        )


def across(prefix: str, values: Mapping[str, Any]) -> Faults:
    """Yield the faults between the granularity and the other fields.

    Args:
        prefix: what the field names start with.
        values: the whole mapping; fields may be wrong in themselves.
    """
    kind = values.get("granularity", "weight")
    chosen = find_granularity(kind)
    if chosen is not None and chosen.implied_sparsity is not None:
        yield from _implied(prefix, values, kind, chosen.implied_sparsity)
    yield from _group_keys(prefix, values, kind)
    spans = chosen is not None and chosen.spans_layers
    if spans and not is_even(values.get("distribution", "uniform")):
        yield (
            f"`{prefix}distribution` must be 'uniform' or 'global' with granularity {kind!r}, "
            f"whose units lie over several layers, but is {values['distribution']!r}."
        )
    if values.get("criterion") == "return":
        yield from _return_faults(prefix, values, kind)
    if kind == "hybrid":
        yield from _hybrid_faults(prefix, values)
    elif values.get("hybrid") is not None:
        yield f"`{prefix}hybrid` is only for granularity 'hybrid', but that is {kind!r}."


def implies_sparsity(values: Mapping[str, Any]) -> bool:
    """Return whether the granularity's own fields give the targets."""
    chosen = find_granularity(values.get("granularity"))
    return chosen is not None and (chosen.in_turn or chosen.implied_sparsity is not None)


def _implied(prefix: str, values: Mapping[str, Any], kind: object, implied: float) -> Faults:
    sparsity, distribution = values.get("sparsity"), values.get("distribution", "uniform")
    # 0 is how a dense run of a config is asked for.
    if sparsity not in (None, 0, implied):
        yield (
            f"`{prefix}sparsity` must be left out with granularity {kind!r}, which implies "
            f"{implied:g}, but is {sparsity!r}."
        )
    if values.get("threshold") is not None:
        yield f"`{prefix}threshold` must be left out with granularity {kind!r}: it keeps N of M."
    if not is_even(distribution):
        yield (
            f"`{prefix}distribution` must be 'uniform' or 'global' with granularity {kind!r}, "
            f"which gives every layer the same sparsity, but is {distribution!r}."
        )
    for name, spec in _budgets(values):
        if "sparsity" in spec and spec["sparsity"] not in (0, implied):
            yield (
                f"`{prefix}groups.{name}.sparsity` must be 0 or {implied:g} with granularity "
                f"{kind!r}, but is {spec.get('sparsity')!r}."
            )


def _return_faults(prefix: str, values: Mapping[str, Any], kind: object) -> Faults:
    if kind != "layer":
        yield (
            f"`{prefix}criterion` 'return' scores whole layers, but `{prefix}granularity` is "
            f"{kind!r}. Set it to 'layer', or take another criterion."
        )
    schedule = values.get("schedule")
    if isinstance(schedule, Mapping) and schedule.get("kind") == "gated":
        yield (
            f"`{prefix}schedule.kind` can't be 'gated' with criterion 'return': both ask for the "
            "return. Choose another schedule, or criterion 'l1'."
        )


def _hybrid_faults(prefix: str, values: Mapping[str, Any]) -> Faults:
    given, sparsity = values.get("hybrid"), values.get("sparsity")
    if given is None:
        yield f"`{prefix}hybrid` must be {{neuron: s, weight: s}} with granularity 'hybrid'."
    elif isinstance(given, Mapping) and sparsity not in (None, 0, given.get("weight")):
        yield (
            f"`{prefix}sparsity` must be left out, or be `hybrid.weight` ({given.get('weight')}), "
            f"but is {sparsity!r}."
        )
    if values.get("threshold") is not None:
        yield f"`{prefix}threshold` must be left out with granularity 'hybrid', which has targets."
    schedule = values.get("schedule")
    if isinstance(schedule, Mapping) and schedule.get("kind") == "gated":
        yield (
            f"`{prefix}schedule.kind` can't be 'gated' with granularity 'hybrid': it steps from "
            "one sparsity to another, and there are two. Choose granularity 'neuron' or 'weight'."
        )
    if isinstance(values.get("distribution"), Mapping):
        yield (
            f"`{prefix}distribution` must be a name with granularity 'hybrid': a layer's one "
            "sparsity would not say of what. Name 'uniform', 'erk' or 'global'."
        )


def _group_keys(prefix: str, values: Mapping[str, Any], kind: object) -> Faults:
    keys = {"neuron", "weight"} if kind == "hybrid" else {"sparsity"}
    for name, spec in _budgets(values):
        if set(spec) != keys:
            form = "{neuron: s, weight: s}" if kind == "hybrid" else "{sparsity: s}"
            yield f"`{prefix}groups.{name}` must be {form} with granularity {kind!r}."


def _budgets(values: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    groups = values.get("groups")
    if not isinstance(groups, Mapping):
        return []
    return [(str(name), spec) for name, spec in groups.items() if isinstance(spec, Mapping)]
