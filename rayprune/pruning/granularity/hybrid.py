"""Granularity ``hybrid``: structured and unstructured pruning in turn, units and then weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from torch import Tensor, nn

from rayprune.pruning.checks import Faults, must, sparsity
from rayprune.pruning.component import Chosen
from rayprune.pruning.granularity.base import Part, WithinLayers
from rayprune.pruning.granularity.weight import weight_parts

TURNS = ("neuron", "weight")
_FORMS: Final = (set(TURNS), {"head", "weight"})


class HybridGranularity(WithinLayers):
    """Neurons or heads first, then weights: hybrid {neuron: s, weight: s} says how much of each."""

    __slots__ = ()

    removes_units = True
    in_turn = True
    group_keys = TURNS

    def split(self, layer: nn.Module, parameters: Mapping[str, Tensor]) -> list[Part]:
        """Split a layer into weights, which both turns prune."""
        return weight_parts(parameters)


def hybrid_faults(field: str, value: Any) -> Faults:
    """Yield the faults of a config's ``hybrid``.

    Args:
        field: its name in the messages.
        value: anything.
    """
    if value is None:
        return
    if not isinstance(value, Mapping) or set(value) not in _FORMS:
        yield must(field, "{neuron: s, weight: s} or {head: s, weight: s}", value)
        return
    faults = [fault for key in value for fault in sparsity(f"{field}.{key}", value[key])]
    yield from faults
    units = _units_in(value)
    if not faults and value["weight"] < value[units]:
        yield (
            f"`{field}.weight` must not be less than `{units}` ({value[units]}), but is "
            f"{value['weight']}: it counts the weights of pruned units too."
        )


def hybrid_conflicts(prefix: str, chosen: Chosen) -> Faults:
    """Yield what doesn't go with ``hybrid``, or with its being left out.

    Args:
        prefix: what the field names start with in the messages.
        chosen: the whole config.
    """
    given, target = chosen.values.get("hybrid"), chosen.values.get("sparsity")
    if not chosen.granularity.in_turn:
        if given is not None:
            yield (
                f"`{prefix}hybrid` is only for granularity 'hybrid', but that is "
                f"{chosen.granularity_name!r}."
            )
        return
    if given is None:
        yield f"`{prefix}hybrid` must be {{neuron: s, weight: s}} with granularity 'hybrid'."
    elif isinstance(given, Mapping) and "head" in given and chosen.values.get("groups"):
        yield (
            f"`{prefix}groups` must be left out where `{prefix}hybrid` has heads: their share is "
            "of the attention layers alone, wherever these are."
        )
    elif isinstance(given, Mapping) and target not in (None, 0, given.get("weight")):
        yield (
            f"`{prefix}sparsity` must be left out, or be `hybrid.weight` ({given.get('weight')}), "
            f"but is {target!r}."
        )
    if chosen.values.get("threshold") is not None:
        yield f"`{prefix}threshold` must be left out with granularity 'hybrid', which has targets."
    if chosen.schedule.finds_sparsity:
        yield (
            f"`{prefix}schedule.kind` can't be {chosen.schedule_block.get('kind')!r} with "
            "granularity 'hybrid': it steps from one sparsity to another, and there are two. "
            "Choose granularity 'neuron' or 'weight'."
        )
    if isinstance(chosen.values.get("distribution"), Mapping):
        yield (
            f"`{prefix}distribution` must be a name with granularity 'hybrid': a layer's one "
            "sparsity would not say of what. Name 'uniform', 'erk' or 'global'."
        )


def turns(chosen: Chosen) -> list[dict[str, Any]]:
    """Return the fields that change for each granularity that a mask update prunes in turn.

    Args:
        chosen: the whole config, with all its fields.
    """
    values, scores_units = chosen.values, chosen.criterion.scores == "units"
    return [
        {
            "granularity": kind,
            # A criterion of units says nothing of the weights that are left in one.
            "criterion": "l1" if kind == "weight" and scores_units else values["criterion"],
            "hybrid": None,
            "sparsity": 0.0 if values["sparsity"] == 0 else values["hybrid"][kind],
            "groups": {group: {"sparsity": spec[kind]} for group, spec in values["groups"].items()},
        }
        for kind in (_units_in(values["hybrid"]), "weight")
    ]


def _units_in(given: Mapping[str, Any] | None) -> str:
    return "head" if given and "head" in given else "neuron"


def field_of(field: str, kind: str) -> str:
    """Name the target of one turn as the config does.

    Args:
        field: what it is in the config of that turn.
        kind: the turn's granularity.

    >>> field_of("pruning.sparsity", "neuron"), field_of("pruning.groups.policy.sparsity", "weight")
    ('pruning.hybrid.neuron', 'pruning.groups.policy.weight')
    """
    if field == "pruning.sparsity":
        return f"pruning.hybrid.{kind}"
    return f"{field.removesuffix('sparsity')}{kind}"
