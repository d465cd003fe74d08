"""Every fault of a pruning config, each worded with field, constraint, value and way out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

from rayprune.errors import did_you_mean
from rayprune.pruning.blocks import live_compaction as compaction_faults
from rayprune.pruning.blocks.distillation import distillation_faults, teacher_faults
from rayprune.pruning.blocks.evidence import evidence_faults
from rayprune.pruning.checks import choice_fault
from rayprune.pruning.component import Chosen, CriterionRules, GranularityRules
from rayprune.pruning.criteria import CRITERIA, find_criterion
from rayprune.pruning.distributions import DISTRIBUTIONS, is_even
from rayprune.pruning.granularity import POOLINGS, find_granularity, granularity_faults
from rayprune.pruning.granularity.hybrid import hybrid_conflicts, hybrid_faults
from rayprune.pruning.measures.plasticity import WINDOW
from rayprune.pruning.penalties import penalty_conflicts
from rayprune.pruning.remedies import remedy_faults
from rayprune.pruning.schedules import schedule_faults, schedule_of
from rayprune.pruning.schedules.sparse import weight_faults

_BUDGETS = ({"sparsity"}, {"neuron", "weight"})
THRESHOLDS = ("absolute", "percentile", "mean_fraction")
MAX_FADING_UPDATES = 255

Faults = Iterator[str]


def faults_of(values: object, prefix: str, fields: Sequence[str]) -> list[str]:
    """Return the faults of a mapping that shall become a `PruningConfig`.

    Args:
        values: anything; only a mapping can be right.
        prefix: what the field names start with in the messages, such as ``pruning.``.
        fields: the names that are known.
    """
    if not isinstance(values, Mapping):
        return [f"`{prefix.rstrip('.') or 'pruning'}` must be a mapping, but is {values!r}."]
    faults = [_unknown(f"{prefix}{key}", key, fields) for key in values if key not in fields]
    for name, check in _CHECKS.items():
        if name in values:
            faults.extend(check(f"{prefix}{name}", values[name]))
    return faults + list(_across(prefix, values))


def _unknown(field: str, key: object, known: Sequence[str]) -> str:
    hint = did_you_mean(key, known)
    return f"`{field}` is not a known key.{hint or f' Known are {sorted(known)}.'}"


def _must(field: str, constraint: str, value: object) -> str:
    return f"`{field}` must be {constraint}, but is {value!r}."


def _is_real(value: object) -> bool:
    # NaN is the one number that differs from itself.
    return not isinstance(value, bool) and isinstance(value, Real) and value == value


def _is_integer(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, Integral)


def _sparsity(field: str, value: Any) -> Faults:
    if not _is_real(value):
        yield _must(field, "a number in [0, 1)", value)
    elif not 0 <= value < 1:
        yield _must(field, "in [0, 1)", float(value))


def _optional_sparsity(field: str, value: Any) -> Faults:
    if value is not None:
        yield from _sparsity(field, value)


def _threshold(field: str, value: Any) -> Faults:
    if value is None:
        return
    kinds = [key for key in value if key in THRESHOLDS] if isinstance(value, Mapping) else []
    if len(kinds) != 1:
        forms = "{absolute: x}, {percentile: p} or {mean_fraction: f}"
        yield _must(field, f"one of {forms}", value)
        return
    kind = kinds[0]
    known = [kind, "of_lowest"] if kind == "mean_fraction" else [kind]
    for key, number in value.items():
        name = f"{field}.{key}"
        if key not in known:
            yield _unknown(name, key, known)
        elif not _is_real(number):
            yield _must(name, "a number", number)
        elif key == "percentile" and not 0 < number < 100:
            yield _must(name, "in (0, 100)", number)  # the 100th would prune everything
        elif key == "of_lowest" and not 0 < number <= 100:
            yield _must(name, "in (0, 100]", number)
        elif number < 0 or number == float("inf"):
            yield _must(name, "finite and at least 0", number)


def _choice(names: Mapping[str, object] | list[str]) -> Callable[[str, Any], Faults]:
    def check(field: str, value: Any) -> Faults:
        if not isinstance(value, str) or value not in names:
            yield choice_fault(field, value, names)

    return check


def _distribution(field: str, value: Any) -> Faults:
    if not isinstance(value, Mapping):
        if not isinstance(value, str) or value not in DISTRIBUTIONS:
            fault = choice_fault(field, value, DISTRIBUTIONS)
            yield f"{fault} A mapping {{layer name: sparsity}} will do too."
        return
    for layer, sparsity in value.items():
        if not isinstance(layer, str):
            yield f"`{field}` must name layers by strings, but one is {layer!r}."
        yield from _sparsity(f"{field}.{layer}", sparsity)


def _operation(field: str, value: Any) -> Faults:
    if value == "zero":
        return
    if not isinstance(value, Mapping) or set(value) != {"scale", "steps"}:
        yield _must(field, "'zero' or {scale: c, steps: k}", value)
        return
    scale, steps = value["scale"], value["steps"]
    if not _is_real(scale) or not 0 < scale < 1:
        yield _must(f"{field}.scale", "in (0, 1)", scale)
    # A float that is whole is what JSON and Tune make of an integer.
    if not _is_real(steps) or not 1 <= steps <= MAX_FADING_UPDATES or steps % 1:
        yield _must(f"{field}.steps", f"an integer in [1, {MAX_FADING_UPDATES}]", steps)


def _protect(field: str, value: Any) -> Faults:
    if isinstance(value, str) or not isinstance(value, Sequence):
        yield _must(field, "a list of glob patterns", value)
        return
    yield from (
        f"`{field}` must hold strings, but one is {pattern!r}."
        for pattern in value
        if not isinstance(pattern, str)
    )


def _groups(field: str, value: Any) -> Faults:
    if not isinstance(value, Mapping):
        yield _must(field, "a mapping {group: {sparsity: s}}", value)
        return
    for name, budget in value.items():
        if not isinstance(name, str):
            yield f"`{field}` must name groups by strings, but one is {name!r}."
        elif not isinstance(budget, Mapping) or set(budget) not in _BUDGETS:
            forms = "{sparsity: s}, or with granularity 'hybrid' {neuron: s, weight: s}"
            yield _must(f"{field}.{name}", forms, budget)
        else:
            for key, sparsity in budget.items():
                yield from _sparsity(f"{field}.{name}.{key}", sparsity)


def _plasticity(field: str, value: Any) -> Faults:
    if value is None:
        return
    if not isinstance(value, Mapping) or set(value) != {"every"}:
        yield _must(field, "{every: optimizer steps} or null", value)
    elif not _is_integer(value["every"]) or value["every"] < WINDOW:
        yield _must(f"{field}.every", f"an integer of at least {WINDOW}", value["every"])


def _fused_optimizer(field: str, value: Any) -> Faults:
    if not isinstance(value, bool):
        yield _must(field, "true or false", value)


def _horizon(field: str, value: Any) -> Faults:
    if value is not None and (not _is_integer(value) or value < 1):
        yield _must(field, "an integer of at least 1 (env steps)", value)


_CHECKS: Mapping[str, Callable[[str, Any], Faults]] = {
    "sparsity": _optional_sparsity,
    "threshold": _threshold,
    "criterion": _choice(CRITERIA),
    "granularity": granularity_faults,
    "hybrid": hybrid_faults,
    "pooling": _choice(POOLINGS),
    "distribution": _distribution,
    "operation": _operation,
    "schedule": schedule_faults,
    "protect": _protect,
    "groups": _groups,
    "frozen": _choice(["keep", "prune"]),
    "on_clone": _choice(["hold", "regrow"]),
    "compact_every": compaction_faults.compact_every,
    "evidence": evidence_faults,
    "distillation": distillation_faults,
    "plasticity": _plasticity,
    "fused_optimizer": _fused_optimizer,
    "horizon": _horizon,
}


def _across(prefix: str, values: Mapping[str, Any]) -> Faults:
    """Yield the faults that lie between fields."""
    chosen = chosen_of(values)
    yield from chosen.criterion.conflicts(prefix, chosen)
    yield from chosen.schedule.conflicts(prefix, chosen)
    yield from _on_clone(prefix, chosen)
    yield from penalty_conflicts(prefix, chosen)
    yield from remedy_faults(prefix, values)
    yield from compaction_faults.across(prefix, values)
    sparsity, threshold = values.get("sparsity"), values.get("threshold")
    groups, distribution = values.get("groups") or {}, values.get("distribution", "uniform")
    yield from _rounds(prefix, chosen)
    yield from teacher_faults(prefix, values)
    yield from chosen.granularity.conflicts(prefix, chosen)
    yield from _by_return(prefix, chosen)
    yield from hybrid_conflicts(prefix, chosen)
    if threshold is None:
        if (
            sparsity is None
            and not chosen.schedule.finds_sparsity
            and not chosen.granularity.in_turn
            and chosen.granularity.implied_sparsity is None
            and not groups
            and not isinstance(distribution, Mapping)
        ):
            yield f"One of `{prefix}sparsity` and `{prefix}threshold` must be given."
        return
    if sparsity is not None:
        yield f"Only one of `{prefix}sparsity` and `{prefix}threshold` can be given, not both."
    if groups:
        yield f"`{prefix}groups` gives sparsities, so `{prefix}threshold` must be left out."
    if not is_even(distribution):
        yield (
            f"`{prefix}distribution` must be 'uniform' or 'global' with a threshold, "
            f"but is {distribution!r}."
        )


def chosen_of(values: Mapping[str, Any]) -> Chosen:
    """Return the choices of a config's fields, which may be wrong in themselves."""
    return Chosen(
        values=values,
        criterion=find_criterion(values.get("criterion", "l1")) or CriterionRules(),
        granularity=find_granularity(values.get("granularity", "weight")) or GranularityRules(),
        schedule=schedule_of(values.get("schedule")),
    )


def _on_clone(prefix: str, chosen: Chosen) -> Faults:
    if chosen.values.get("on_clone") != "regrow":
        return
    yield from weight_faults(f"`{prefix}on_clone` 'regrow'", prefix, chosen)
    if isinstance(chosen.values.get("operation"), Mapping):
        yield (
            f"`{prefix}operation` must be 'zero' with `{prefix}on_clone` 'regrow': what still "
            f"fades can't grow back. Or leave `{prefix}on_clone` at 'hold'."
        )
    if chosen.values.get("threshold") is not None:
        yield (
            f"`{prefix}on_clone` 'regrow' needs a target to regrow to, but `{prefix}threshold` "
            f"gives none. Give `{prefix}sparsity`, or leave it at 'hold'."
        )


def _by_return(prefix: str, chosen: Chosen) -> Faults:
    """Yield what doesn't go with a criterion that asks a driver for returns."""
    name = chosen.criterion_name
    if not chosen.criterion.needs_returns:
        return
    if not chosen.granularity.becomes_identity:
        yield (
            f"`{prefix}criterion` {name!r} scores whole layers, but `{prefix}granularity` is "
            f"{chosen.granularity_name!r}. Set it to 'layer', or take another criterion."
        )
    if chosen.schedule.finds_sparsity:
        yield (
            f"`{prefix}schedule.kind` can't be {chosen.schedule_block.get('kind')!r} with "
            f"criterion {name!r}: both ask for the return. Choose another schedule, or criterion "
            "'l1'."
        )


def _rounds(prefix: str, chosen: Chosen) -> Faults:
    """Yield what contradicts a schedule that prunes in rounds, each at once."""
    values, kind = chosen.values, chosen.schedule_block.get("kind")
    if chosen.schedule.in_rounds and values.get("operation", "zero") != "zero":
        yield (
            f"`{prefix}operation` must be 'zero' with a {kind} schedule, whose rounds prune at "
            f"once, but is {values['operation']!r}."
        )
    for name in dict.fromkeys(chosen.schedule.criteria_in(chosen.schedule_block)):
        if name != chosen.criterion_name:
            other = chosen_of({**values, "criterion": name})
            yield from other.criterion.conflicts(prefix, other)
    if chosen.schedule.finds_sparsity and values.get("threshold") is not None:
        yield (
            f"`{prefix}threshold` can't be used with a {kind} schedule, which steps from sparsity "
            f"to sparsity. Leave it out; `{prefix}sparsity` is an upper bound there."
        )
