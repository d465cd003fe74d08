"""`Criterion`: an importance score, as a function and what follows from its inputs."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from rayprune.errors import ConfigError, did_you_mean
from rayprune.pruning.checks import Faults
from rayprune.pruning.component import Chosen, CriterionRules, Scored

WEIGHT_EVIDENCE: Mapping[str, str] = {
    "gradient": "gradient of the objective, mean over the minibatches, shaped like the weight",
    "fisher_diagonal": "mean over samples of the squared gradient of one sample, likewise",
    "movement": "minus the sum of weight times gradient over the training, likewise",
    "input_norm": "L2 norm of each input over the observations, `(1 or out, in, ...)`",
}
"""Inputs that are gathered for each weight."""
UNIT_EVIDENCE: Mapping[str, str] = {
    "activations": "of a layer's units, `(observations, units)`",
    "activity": "mean size of these activations over the observations, `(units,)`",
    "actions": "what the policy would do in them: `rayprune.pruning.evidence.objectives.Actions`",
    "coalitions": "values sets of units: `rayprune.pruning.evidence.coalitions.Coalitions`",
}
"""Inputs that are gathered for a layer's units together."""
LOST_RETURN = "lost_return"
INPUTS: Mapping[str, str] = {
    "weight": "the parameter, detached, shape `(out, in, ...)`",
    LOST_RETURN: "the return lost without a layer, shape `(1,)`; measured by the driver",
    "generator": "a CPU `torch.Generator`, the same on every rank and device",
    **WEIGHT_EVIDENCE,
    **UNIT_EVIDENCE,
    "estimator": "the config's `evidence.estimator`",
    "permutations": "the config's `evidence.permutations`",
}
"""What a Pruner can supply to a criterion, by parameter name."""
EVIDENCE: frozenset[str] = frozenset({*WEIGHT_EVIDENCE, *UNIT_EVIDENCE})
"""The inputs that must be gathered from data or summed up in training."""

_UNUSABLE: Mapping[tuple[str, str], str] = {
    ("gradient", "kl"): (
        "the KL to the unpruned policy has no first-order term. Take 'log_prob', or the "
        "criterion 'fisher', which is its second-order term"
    ),
    ("fisher_diagonal", "loss"): (
        "the algorithm's loss is known by the mean of its gradients only. Take 'auto', "
        "'log_prob' or 'value', or the criterion 'taylor'"
    ),
    ("coalitions", "loss"): (
        "the algorithm's loss is known by its gradients only. Take 'auto', 'kl', 'log_prob' "
        "or 'value'"
    ),
}
"""Why an objective gives nothing of an input."""


@dataclass(frozen=True, slots=True)
class Grouped:
    """How a criterion scores weights that are removed together, where pooling would be wrong."""

    contribution: Criterion
    """What each weight contributes, summed over the group."""
    finish: Callable[[Tensor], Tensor]
    """From a group's sum to its score."""


class Criterion(CriterionRules):
    """An importance score: a plain function, called with the inputs that it names; higher = keep.

    Args:
        function: takes inputs named in `INPUTS`, returns scores shaped like ``weight``; or
            ``(units,)``, if it asks for an input of `UNIT_EVIDENCE`.
        elementwise: whether it scores each weight by itself, so that a large tensor can be scored
            in pieces.
        grouped: how it scores weights that are removed together, where that is no pool of their
            scores; ``pooling`` plays no part then.

    Raises:
        ConfigError: a parameter is not among `INPUTS`.

    >>> import torch
    >>> def cubed(weight: Tensor) -> Tensor:
    ...     return weight.abs() ** 3
    >>> Criterion(cubed)(weight=torch.tensor([-2.0])), Criterion(cubed).scores
    (tensor([8.]), 'weights')
    """

    def __init__(
        self,
        function: Callable[..., Tensor],
        *,
        elementwise: bool = False,
        grouped: Grouped | None = None,
    ) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.inputs = inputs_of(function)
        """The names of the inputs that it asks for."""
        self.elementwise = elementwise
        self.grouped = grouped

    def __call__(self, *args: Any, **inputs: Any) -> Tensor:
        """Return the scores."""
        return self.function(*args, **inputs)

    @functools.cached_property
    def evidence(self) -> frozenset[str]:
        """Its inputs that must be gathered from data, or summed up in training."""
        return EVIDENCE.intersection(self.inputs)

    @functools.cached_property
    def scores(self) -> Scored:
        """What it scores: single weights, a layer's units, or whole layers."""
        if self.needs_returns:
            return "layers"
        return "weights" if self.evidence.isdisjoint(UNIT_EVIDENCE) else "units"

    @property
    def needs_returns(self) -> bool:
        """Whether a driver must measure returns for it."""
        return LOST_RETURN in self.inputs

    @classmethod
    def conflicts(cls, prefix: str, chosen: Chosen) -> Faults:
        """Yield what its inputs can't be gathered for: a granularity, an objective."""
        name, block = chosen.criterion_name, chosen.values.get("evidence")
        if chosen.criterion.scores == "units" and not chosen.granularity.removes_units:
            yield (
                f"`{prefix}criterion` {name!r} scores units, but `{prefix}granularity` is "
                f"{chosen.granularity_name!r}. Set it to 'neuron', or take a criterion of weights "
                "such as 'fisher'."
            )
        objective = block.get("objective", "auto") if isinstance(block, Mapping) else "auto"
        for (needed, useless), why in _UNUSABLE.items():
            if needed in chosen.criterion.evidence and objective == useless:
                yield (
                    f"`{prefix}evidence.objective` {objective!r} is of no use to criterion "
                    f"{name!r}: {why}."
                )


def return_conflicts(prefix: str, chosen: Chosen) -> Faults:
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


def inputs_of(function: Callable[..., Tensor]) -> tuple[str, ...]:
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
