"""Criteria: importance scores, plain functions of a weight and more inputs; higher means keep.

A criterion asks for its inputs by the names of its parameters, which must be among `INPUTS`. What
follows from them, `Criterion` knows: one that asks for an input of `UNIT_EVIDENCE` scores whole
units, one that asks for the return lost scores whole layers.

>>> CRITERIA["l1"].__name__, CRITERIA["random"].inputs
('l1', ('weight', 'generator'))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from rayprune.errors import ConfigError
from rayprune.pruning.checks import choice_fault
from rayprune.pruning.criteria.activation import wanda, wanda_rows
from rayprune.pruning.criteria.base import (
    EVIDENCE,
    INPUTS,
    UNIT_EVIDENCE,
    WEIGHT_EVIDENCE,
    Criterion,
    Grouped,
)
from rayprune.pruning.criteria.dormant import dormant
from rayprune.pruning.criteria.gradient import first_order, fisher, movement, snip, taylor
from rayprune.pruning.criteria.information import information_gain
from rayprune.pruning.criteria.lost_return import lost_return
from rayprune.pruning.criteria.magnitude import l1, l2, lamp, normalised, random, relative
from rayprune.pruning.criteria.shapley import shapley
from rayprune.pruning.registry import Registry

__all__ = [
    "CRITERIA",
    "EVIDENCE",
    "INPUTS",
    "UNIT_EVIDENCE",
    "WEIGHT_EVIDENCE",
    "Criterion",
    "Grouped",
    "find_criterion",
    "lookup",
    "register_criterion",
]

_REGISTRY: Registry[Criterion] = Registry(
    "criterion",
    {
        "l1": Criterion(l1, elementwise=True),
        "l2": Criterion(l2, elementwise=True),
        "random": Criterion(random),
        "relative": Criterion(relative),
        "normalised": Criterion(normalised),
        "lamp": Criterion(lamp),
        "snip": Criterion(snip),
        "taylor": Criterion(taylor, grouped=Grouped(Criterion(first_order), torch.square)),
        "movement": Criterion(movement),
        "fisher": Criterion(fisher),
        "wanda": Criterion(wanda),
        "wanda_rows": Criterion(wanda_rows),
        "information_gain": Criterion(information_gain),
        "dormant": Criterion(dormant),
        "shapley": Criterion(shapley),
        "return": Criterion(lost_return),
    },
)
CRITERIA: Mapping[str, Criterion] = _REGISTRY


def register_criterion(name: str, function: Callable[..., Tensor]) -> None:
    """Make a criterion known by name to `PruningConfig` and the YAML.

    Args:
        name: a new name.
        function: takes inputs named in `INPUTS`, returns scores shaped like ``weight``,
            higher = keep; or ``(units,)``, if it asks for an input of `UNIT_EVIDENCE`. Or a
            `Criterion` of such a function, which says more of it.

    Raises:
        ConfigError: the name is taken, or a parameter is not among `INPUTS`.

    >>> register_criterion("cubed", lambda weight: weight.abs() ** 3)
    """
    _REGISTRY.add(name, function if isinstance(function, Criterion) else Criterion(function))


def find_criterion(name: object) -> Criterion | None:
    """Return the criterion of that name; None where there is none."""
    return CRITERIA.get(name) if isinstance(name, str) else None


def lookup(name: str) -> Criterion:
    """Return the criterion of that name.

    Raises:
        ConfigError: there is none; names the nearest.
    """
    if name not in CRITERIA:
        raise ConfigError(choice_fault("criterion", name, CRITERIA))
    return CRITERIA[name]
