"""Granularity ``hybrid``: structured and unstructured pruning in turn, units and then weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from rayprune.pruning.granularity.base import Part, WithinLayers
from rayprune.pruning.granularity.weight import weight_parts

TURNS = ("neuron", "weight")


class HybridGranularity(WithinLayers):
    """Neurons first, then weights: hybrid {neuron: s, weight: s} says how much of each."""

    __slots__ = ()

    removes_units = True
    in_turn = True

    def split(self, layer: nn.Module, parameters: Mapping[str, Tensor]) -> list[Part]:
        """Split a layer into weights, which both turns prune."""
        return weight_parts(parameters)


def turns(values: Mapping[str, Any], scores_units: bool) -> list[dict[str, Any]]:
    """Return the fields that change for each granularity that a mask update prunes in turn.

    Args:
        values: all fields of the config.
        scores_units: whether its criterion does.
    """
    return [
        {
            "granularity": kind,
            # A criterion of units says nothing of the weights that are left in one.
            "criterion": "l1" if kind == "weight" and scores_units else values["criterion"],
            "hybrid": None,
            "sparsity": 0.0 if values["sparsity"] == 0 else values["hybrid"][kind],
            "groups": {group: {"sparsity": spec[kind]} for group, spec in values["groups"].items()},
        }
        for kind in TURNS
    ]


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
