"""Granularities: what is removed together, single weights or whole structures.

Unstructured pruning removes single weights; structured pruning rows, filters, blocks or layers. A
granularity says of which layers it removes something, and splits them into *parts*: sets of weights
that compete, one by one or pooled to units. One file each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rayprune.pruning.checks import Faults, choice_fault
from rayprune.pruning.granularity.base import POOLINGS, Granularity, Named, Network, Part
from rayprune.pruning.granularity.block import BlockGranularity
from rayprune.pruning.granularity.head import HeadGranularity
from rayprune.pruning.granularity.hybrid import HybridGranularity
from rayprune.pruning.granularity.input import InputGranularity
from rayprune.pruning.granularity.layer import LayerGranularity
from rayprune.pruning.granularity.n_of_m import NofMGranularity
from rayprune.pruning.granularity.neuron import NeuronGranularity
from rayprune.pruning.granularity.weight import WeightGranularity
from rayprune.pruning.registry import Registry

__all__ = [
    "GRANULARITIES",
    "POOLINGS",
    "Granularity",
    "Named",
    "Network",
    "Part",
    "find_granularity",
    "granularity_faults",
    "granularity_of",
    "register_granularity",
]

_REGISTRY: Registry[type[Granularity]] = Registry(
    "granularity",
    {
        "weight": WeightGranularity,
        "neuron": NeuronGranularity,
        "block": BlockGranularity,
        "n:m": NofMGranularity,
        "head": HeadGranularity,
        "input": InputGranularity,
        "layer": LayerGranularity,
        "hybrid": HybridGranularity,
    },
)
GRANULARITIES: Mapping[str, type[Granularity]] = _REGISTRY


def register_granularity(name: str, granularity: type[Granularity]) -> None:
    """Make a granularity known by name to `PruningConfig` and the YAML.

    Args:
        name: a new name.
        granularity: a class, most easily a `rayprune.pruning.granularity.base.WithinLayers`.

    Raises:
        ConfigError: the name is taken.
    """
    _REGISTRY.add(name, granularity)


def find_granularity(name: object) -> Granularity | None:
    """Return the granularity that a config may name so; None where none is.

    >>> filters, pattern = find_granularity("filter"), find_granularity("2:4")
    >>> filters.name, pattern.name, find_granularity("n:m"), find_granularity("4:2")
    ('neuron', '2:4', None, None)
    """
    if not isinstance(name, str):
        return None
    found = (kind.named(key, name) for key, kind in GRANULARITIES.items())
    return next(filter(None, found), None)


def granularity_faults(field: str, value: Any) -> Faults:
    """Yield the fault of a name that is no granularity."""
    if find_granularity(value) is None:
        kinds = GRANULARITIES.values()
        known = [*GRANULARITIES, *(alias for kind in kinds for alias in kind.aliases)]
        forms = [kind.form for kind in kinds if kind.form]
        yield " ".join([choice_fault(field, value, known), *forms])


def granularity_of(name: str) -> Granularity:
    """Return the granularity of a config's name, which is known to be one."""
    found = find_granularity(name)
    assert found is not None, name
    return found
