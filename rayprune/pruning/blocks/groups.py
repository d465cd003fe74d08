"""``groups``: layers with a budget of their own, or with other choices than the config's.

``{policy: {sparsity: 0.9}}`` is a budget: all else is the config's. ``{policy: {schedule: ...}}``
is a config of its own: the whole one, with what the group says in its place.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from rayprune.errors import unknown_key
from rayprune.pruning.checks import Faults, must, sparsity
from rayprune.pruning.component import Chosen, is_budget
from rayprune.pruning.granularity import find_granularity
from rayprune.pruning.schedules import complete, schedule_of
from rayprune.pruning.schedules.times import waits_for_return

OWN: Final[Mapping[str, str]] = {
    "sparsity": "The fraction of the group's prunable weights to prune.",
    "threshold": "In place of a sparsity: prune where the score is at most a threshold.",
    "criterion": "What ranks the weights; by default the config's.",
    "granularity": "What is removed together; an n:m or hybrid has targets of its own.",
    "hybrid": "With granularity hybrid: {neuron: s, weight: s}.",
    "pooling": "How a unit's score comes from its weights'.",
    "distribution": "How the group's sparsity splits over its layers.",
    "operation": "Zero at once, or in steps.",
    "schedule": "Whole, or without a kind: keys that change in the config's.",
    "penalty": "What shrinks weights while training; null for none.",
    "evidence": "Keys that change in the config's.",
}
"""The fields that a group may have of its own."""
_WHOLE: Final = (
    "recipe",
    "protect",
    "frozen",
    "groups",
    "max_kl",
    "max_value_change",
    "on_clone",
    "distillation",
    "remedies",
    "compact_every",
    "plasticity",
    "fused_optimizer",
    "horizon",
)
_TARGETS: Final = ("sparsity", "threshold", "hybrid")
_FORMS: Final = "{sparsity: s}, or with granularity 'hybrid' {neuron: s, weight: s}"


def own_blocks(groups: object) -> dict[str, Mapping[str, Any]]:
    """Return what groups say that have more of their own than a budget, by their names.

    Args:
        groups: a config's, as it was given; it may be wrong in itself.
    """
    named = groups.items() if isinstance(groups, Mapping) else ()
    return {
        name: block
        for name, block in named
        if isinstance(name, str) and isinstance(block, Mapping) and block and not is_budget(block)
    }


def faults(field: str, value: Any) -> Faults:
    """Yield what is wrong with ``groups``, apart from the values of a group's own fields."""
    if not isinstance(value, Mapping):
        yield must(field, "a mapping {group: {sparsity: s}}", value)
        return
    for name, block in value.items():
        if not isinstance(name, str):
            yield f"`{field}` must name groups by strings, but one is {name!r}."
        elif not isinstance(block, Mapping) or not block:
            yield must(f"{field}.{name}", f"{_FORMS}, or fields of its own", block)
        elif is_budget(block):
            for key, target in block.items():
                yield from sparsity(f"{field}.{name}.{key}", target)
        else:
            yield from _key_faults(f"{field}.{name}", block)


def _key_faults(field: str, block: Mapping[Any, Any]) -> Faults:
    root = field.rpartition(".groups.")[0] or "pruning"
    for key in block:
        if key in ("neuron", "weight"):
            others = sorted(set(block) - {key})
            where = f"beside {others}" if others else "alone"
            yield (
                f"`{field}.{key}` can't stand {where}. Give the group "
                "`hybrid: {neuron: s, weight: s}`."
            )
        elif key in _WHOLE:
            yield (
                f"`{field}.{key}` can't be a group's own: it is of the whole network. Give "
                f"`{root}.{key}`."
            )
        elif key not in OWN:
            yield unknown_key(f"{field}.{key}", list(OWN), key)


def fields_of(whole: Mapping[str, Any], block: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a group's config: the whole one's, with the group's own in their places.

    A target takes the place of any other. A ``schedule`` that names no kind, and ``evidence``,
    change keys of the whole config's.

    Args:
        whole: the whole config's fields, as they were given.
        block: the group's.

    >>> whole = {"sparsity": 0.5, "criterion": "l1", "schedule": {"kind": "linear", "end": 0.5}}
    >>> fields_of(whole, {"threshold": {"absolute": 0.1}, "schedule": {"end": 0.9}})
    {'criterion': 'l1', 'schedule': {'kind': 'linear', 'end': 0.9}, 'threshold': {'absolute': 0.1}}
    """
    own = {key: value for key, value in block.items() if key in OWN}
    dropped = {"groups", *_replaced(own)}
    inherited = {key: value for key, value in whole.items() if key not in dropped}
    for key in ("schedule", "evidence"):
        if _only_changes(key, own.get(key)) and isinstance(inherited.get(key), Mapping):
            own[key] = {**inherited[key], **own[key]}
    return {**inherited, **own}


def _only_changes(key: str, value: Any) -> bool:
    return isinstance(value, Mapping) and not (key == "schedule" and "kind" in value)


def _replaced(own: Mapping[str, Any]) -> Iterator[str]:
    """Yield the targets of the whole config that a group's own fields put out of force."""
    if any(own.get(key) is not None for key in _TARGETS):
        yield from _TARGETS
    elif (granularity := find_granularity(own.get("granularity"))) is not None:
        if granularity.implied_sparsity is not None:
            yield from _TARGETS
        elif granularity.in_turn:
            yield from ("sparsity", "threshold")
        else:
            yield "hybrid"


def completed(block: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a group says in the form that a config keeps it in."""
    return {key: _completed(key, value) for key, value in block.items()}


def _completed(key: str, value: Any) -> Any:
    if key in ("sparsity", "neuron", "weight"):
        return None if value is None else float(value)
    if key == "granularity":
        found = find_granularity(value)
        return value if found is None else found.name
    if key == "schedule" and "kind" in value:
        return complete(value)
    return value


def conflicts(prefix: str, chosen: Chosen) -> Faults:
    """Yield what of groups acts on the whole network, or stands beside what does."""
    whole = chosen.schedule
    for name, block in own_blocks(chosen.values.get("groups")).items():
        yield from _compaction_conflicts(prefix, name, block, chosen)
        given = block.get("schedule")
        if not isinstance(given, Mapping):
            continue
        field = f"{prefix}groups.{name}.schedule"
        if whole.finds_sparsity or whole.rewinds:
            yield (
                f"`{field}` can't be given beside `{prefix}schedule.kind` "
                f"{chosen.schedule_block.get('kind')!r}, which {_why(whole)}. Leave it out, or "
                "give the config another kind."
            )
            continue
        own = schedule_of(given)
        if own.finds_sparsity or own.rewinds or own.competes:
            yield (
                f"`{field}.kind` can't be {given.get('kind')!r}, which {_why(own)}. Give it to "
                f"`{prefix}schedule`, or the group another kind."
            )
        elif waits_for_return(given):
            yield (
                f"`{field}.begin` can't wait for a return, which is one for the whole network. "
                f"Give it to `{prefix}schedule`, or the group a time."
            )


def _compaction_conflicts(
    prefix: str, name: str, block: Mapping[str, Any], chosen: Chosen
) -> Faults:
    own, whole = find_granularity(block.get("granularity")), chosen.granularity
    if chosen.values.get("compact_every") is None or own is None:
        return
    if own.removes_units and whole.removes_units and own.whole_rows != whole.whole_rows:
        yield (
            f"`{prefix}groups.{name}.granularity` can't be {own.name!r} beside "
            f"`{prefix}granularity` {chosen.granularity_name!r} where `{prefix}compact_every` is "
            "given: a network that shrinks counts what is left of it in one way. Give both the "
            f"same, or leave `{prefix}compact_every` out."
        )


def _why(schedule: Any) -> str:
    if schedule.competes:
        return "trains several copies of the whole network"
    if schedule.rewinds:
        return "takes the whole network back to its early weights"
    return "finds one sparsity for the whole network by its return"


@dataclass(frozen=True, slots=True)
class Naming:
    """How the fields of a group's config are called: each as a user has given it.

    >>> naming = Naming("", "pi", {"penalty": {}}, {"schedule": {}})
    >>> naming.told(["`groups.pi.penalty` can't be used: a static mask never changes."])
    ["`penalty` can't be used: a static mask never changes. That is so in group 'pi'."]
    """

    whole_prefix: str
    """What the whole config's fields start with in messages, such as ``pruning.``."""
    name: str
    """The group's."""
    whole: Mapping[str, Any]
    """The whole config's fields."""
    own: Collection[str]
    """Those that the group has given itself."""

    @property
    def prefix(self) -> str:
        """What the group's own fields start with."""
        return f"{self.whole_prefix}groups.{self.name}."

    def told(self, faults: Iterable[str], known: Collection[str] = ()) -> list[str]:
        """Word faults whose fields all start with `prefix`.

        Args:
            faults: of the group's config.
            known: those of the whole config, which aren't told again.
        """
        renamed = [re.sub(rf"`{re.escape(self.prefix)}(\w+)", self._renamed, x) for x in faults]
        return [self._placed(fault) for fault in renamed if fault not in known]

    def _renamed(self, found: re.Match[str]) -> str:
        inherited = self.whole.get(found[1]) is not None and found[1] not in self.own
        return f"`{self.whole_prefix if inherited else self.prefix}{found[1]}"

    def _placed(self, fault: str) -> str:
        return (
            fault if f"`{self.prefix}" in fault else f"{fault} That is so in group {self.name!r}."
        )
