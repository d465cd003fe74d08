"""Criteria: plain functions from a weight (and more inputs) to scores; higher means keep.

A criterion asks for its inputs by the names of its parameters, which must be among `INPUTS`. A
criterion that asks for an input of `UNIT_EVIDENCE` scores whole units, never single weights.

>>> CRITERIA["l1"].__name__, inputs_of(CRITERIA["random"])
('l1', ('weight', 'generator'))
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rayprune.errors import ConfigError, did_you_mean
from rayprune.pruning.checks import choice_fault
from rayprune.pruning.criteria.activation import wanda, wanda_rows
from rayprune.pruning.criteria.gradient import first_order, fisher, movement, snip, taylor
from rayprune.pruning.criteria.information import information_gain
from rayprune.pruning.criteria.lost_return import lost_return
from rayprune.pruning.criteria.magnitude import l1, l2, lamp, normalised, random, relative
from rayprune.pruning.criteria.shapley import shapley
from rayprune.pruning.registry import Registry

Criterion = Callable[..., Tensor]

WEIGHT_EVIDENCE: Mapping[str, str] = {
    "gradient": "gradient of the objective, mean over the minibatches, shaped like the weight",
    "fisher_diagonal": "mean over samples of the squared gradient of one sample, likewise",
    "movement": "minus the sum of weight times gradient over the training, likewise",
    "input_norm": "L2 norm of each input over the observations, `(1 or out, in, ...)`",
}
"""Inputs that are gathered for each weight."""
UNIT_EVIDENCE: Mapping[str, str] = {
    "activations": "of a layer's units, `(observations, units)`",
    "actions": "what the policy would do in them: `rayprune.pruning.evidence.objectives.Actions`",
    "coalitions": "values sets of units: `rayprune.pruning.evidence.coalitions.Coalitions`",
}
"""Inputs that are gathered for a layer's units together."""
INPUTS: Mapping[str, str] = {
    "weight": "the parameter, detached, shape `(out, in, ...)`",
    "lost_return": "the return lost without a layer, shape `(1,)`; measured by the driver",
    "generator": "a CPU `torch.Generator`, the same on every rank and device",
    **WEIGHT_EVIDENCE,
    **UNIT_EVIDENCE,
    "estimator": "the config's `evidence.estimator`",
    "permutations": "the config's `evidence.permutations`",
}
"""What a Pruner can supply to a criterion, by parameter name."""
EVIDENCE: frozenset[str] = frozenset({*WEIGHT_EVIDENCE, *UNIT_EVIDENCE})
"""The inputs that must be gathered from data or summed up in training."""

RETURN = "return"

_REGISTRY: Registry[Criterion] = Registry(
    "criterion",
    {
        "l1": l1,
        "l2": l2,
        "random": random,
        "relative": relative,
        "normalised": normalised,
        "lamp": lamp,
        "snip": snip,
        "taylor": taylor,
        "movement": movement,
        "fisher": fisher,
        "wanda": wanda,
        "wanda_rows": wanda_rows,
        "information_gain": information_gain,
        "shapley": shapley,
        RETURN: lost_return,
    },
)
CRITERIA: Mapping[str, Criterion] = _REGISTRY
ELEMENTWISE: frozenset[Criterion] = frozenset({l1, l2})
"""Criteria that score each weight by itself, so that a large tensor can be scored in pieces."""


@dataclass(frozen=True, slots=True)
class Grouped:
    """How a criterion scores weights that are removed together, where pooling would be wrong."""

    contribution: Criterion
    """What each weight contributes, summed over the group."""
    finish: Callable[[Tensor], Tensor]
    """From a group's sum to its score."""


GROUPED: Mapping[Criterion, Grouped] = {taylor: Grouped(first_order, torch.square)}
"""Criteria whose score of a group is no pool of its weights' scores; `pooling` plays no part."""


def register_criterion(name: str, function: Criterion) -> None:
    """Make a criterion known by name to `PruningConfig` and the YAML.

    Args:
        name: a new name.
        function: takes inputs named in `INPUTS`, returns scores shaped like ``weight``,
            higher = keep; or ``(units,)``, if it asks for an input of `UNIT_EVIDENCE`.

    Raises:
        ConfigError: the name is taken, or a parameter is not among `INPUTS`.

    >>> register_criterion("cubed", lambda weight: weight.abs() ** 3)
    """
    inputs_of(function)
    _REGISTRY.add(name, function)


def lookup(name: str) -> Criterion:
    """Return the criterion of that name.

    Raises:
        ConfigError: there is none; names the nearest.
    """
    if name not in CRITERIA:
        raise ConfigError(choice_fault("criterion", name, CRITERIA))
    return CRITERIA[name]


def evidence_for(name: str) -> frozenset[str]:
    """Return the inputs of a criterion that must be gathered from data.

    >>> sorted(evidence_for("taylor")), sorted(evidence_for("l1"))
    (['gradient'], [])
    """
    return EVIDENCE.intersection(inputs_of(lookup(name)))


def scores_units(name: str) -> bool:
    """Return whether a criterion scores whole units and no single weights.

    >>> scores_units("shapley"), scores_units("taylor")
    (True, False)
    """
    return not evidence_for(name).isdisjoint(UNIT_EVIDENCE)


@functools.cache  # asked at every optimizer step, and a signature costs tens of microseconds
def inputs_of(function: Criterion) -> tuple[str, ...]:
    """Return the names of the inputs that a criterion asks for.

    Raises:
        ConfigError: a name that is not among `INPUTS`.

    >>> inputs_of(lambda weight, generator: weight)
    ('weight', 'generator')
    """
    names = tuple(inspect.signature(function).parameters)
    for name in names:
        if name not in INPUTS:
            raise ConfigError(
                f"A criterion's parameters must be among {sorted(INPUTS)}, "
                f"but one is {name!r}.{did_you_mean(name, INPUTS)}"
            )
    return names
