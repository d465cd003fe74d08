"""Networks that aren't trained yet, pruned at random weights: what they will take, told before.

Which weights go makes little difference to a file's size and time; how many go does.
"""

from __future__ import annotations

import copy
import itertools
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from rayprune.config import ExperimentConfig
from rayprune.deploy.export.export import export_policy
from rayprune.deploy.formats import format_named
from rayprune.deploy.integer.calibration import calibrate
from rayprune.deploy.policy.capture import plain_copy
from rayprune.deploy.policy.runs import timing_inputs
from rayprune.deploy.targets.base import Target
from rayprune.fit.budgets import Budgets
from rayprune.fit.measurement import measure
from rayprune.pruning.config import PruningConfig
from rayprune.pruning.layers.attach import unmask
from rayprune.pruning.pruner import Pruner
from rayprune.rllib.algorithms.target_networks import target_networks
from rayprune.rllib.evaluation.evaluator import Evaluator
from rayprune.rllib.experiment.algorithm_config import base_config, build_module
from rayprune.rllib.export.policy import deployable
from rayprune.rllib.modules.groups import group_of, kept_back
from rayprune.rllib.modules.heads import heads_of
from rayprune.rllib.modules.sensors import sensors_of

_INPUTS: Final = 64
_GROUP_KEYS: Final = ("sparsity", "granularity", "distribution", "protect")


@dataclass(frozen=True, slots=True)
class Left:
    """What is left of a network that acts, counted."""

    weights: int
    """Not zero, and between units that live."""
    parameters: int
    """These and the biases of units that live."""

    def least(self, weight_bits: int) -> dict[str, float]:
        """Return lower bounds of what a file takes: every weight is a constant.

        >>> Left(weights=1000, parameters=1100).least(4)
        {'flash_bytes': 500, 'parameters': 1000}
        """
        return {"flash_bytes": -(-weight_bits * self.weights // 8), "parameters": self.weights}


class Networks:
    """Untrained networks; those of the same widths are built once."""

    def __init__(self) -> None:
        self._built: dict[str, Any] = {}

    def left(self, experiment: ExperimentConfig) -> Left:
        """Return what the experiment's pruning leaves of its network."""
        key = repr((experiment.rllib, experiment.quantise))
        if key not in self._built:
            self._built[key] = build_module(base_config(experiment))
        module = copy.deepcopy(self._built[key])
        _prune(module, experiment)
        return left_of(module)


def measure_untrained(
    experiment: ExperimentConfig, target: Target, budgets: Budgets, *, int8: bool
) -> dict[str, float | None]:
    """Export an untrained network, pruned as the experiment ends, and measure it on a target.

    Args:
        experiment: a candidate's.
        target: where.
        budgets: what it shall keep to.
        int8: whether the file holds whole numbers.

    Raises:
        InputError: it can't be exported or measured.
    """
    evaluator = Evaluator(base_config(experiment), whole=True)
    try:
        _prune(evaluator.module, experiment)
        policy = deployable(evaluator)
        policy = policy if int8 else plain_copy(policy)
    finally:
        evaluator.close()
    kind = format_named(target.format)
    with tempfile.TemporaryDirectory(prefix="rayprune-fit-") as place:
        file = Path(place) / f"policy{kind.suffix}"
        inputs = timing_inputs(policy.interface, _INPUTS)
        if int8 and experiment.quantise is not None:
            # In as many bits as it will be trained to be rounded to.
            unmask(policy)
            calibrate(policy, inputs, experiment.quantise)
        told = export_policy(policy, file, kind.name, recorded=inputs, about={}, quantised=int8)
        return measure(target, file, budgets, parameters_in(told)).figures


def parameters_in(certificate: dict[str, Any]) -> int:
    """Return how many parameters of an exported file aren't zero."""
    counted = certificate["parameters"]
    return int(counted["total"] - counted["zero_weights"])


def left_of(module: nn.Module) -> Left:
    """Count what is left of the part that acts.

    A unit lives that reads something and is read, where the layer behind it has as many columns
    as there are units; so it is a lower bound for whatever is wired in another way.

    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    >>> with torch.no_grad():
    ...     _ = net[0].weight.fill_(1.0), net[2].weight.fill_(1.0)
    ...     _ = net[0].weight[1].zero_(), net[2].weight[0, 2].zero_()
    >>> left_of(net)
    Left(weights=3, parameters=5)
    """
    layers = list(_layers(module))
    kept = [weight != 0 for weight, _ in layers]
    chained = [(a, b) for a, b in itertools.pairwise(kept) if b.shape[1] == len(a)]
    while sum(_drop_dead(before, behind) for before, behind in chained):
        pass
    weights = sum(int(each.sum()) for each in kept)
    biases = sum(
        int(each.flatten(1).any(1).sum())
        for each, (_, bias) in zip(kept, layers, strict=True)
        if bias
    )
    return Left(weights, weights + biases)


def _drop_dead(before: torch.Tensor, behind: torch.Tensor) -> bool:
    """Drop what leads to units that nobody reads, and what reads units that read nothing.

    Args:
        before: what is kept of the layer that makes the units, ``(units, ...)``; changed in place.
        behind: of the layer that reads them, ``(out, units, ...)``; likewise.

    Returns:
        Whether anything was dropped.
    """
    alive = before.flatten(1).any(1)
    read = behind.transpose(0, 1).flatten(1).any(1)
    changed = bool((alive != read).any())
    before[~read] = False
    behind[:, ~alive] = False
    return changed


def _layers(module: nn.Module) -> Iterator[tuple[torch.Tensor, bool]]:
    """Yield each weight of what acts, shape ``(out, in, ...)``, and whether it has a bias."""
    apart = kept_back(module)
    for name, layer in module.named_modules():
        if any(name == part or name.startswith(f"{part}.") for part in apart):
            continue
        own = dict(layer.named_parameters(recurse=False))
        for parameter, value in own.items():
            if value.dim() > 1:
                yield value.detach(), own.get("bias") is not None and parameter == "weight"


def _prune(module: Any, experiment: ExperimentConfig) -> None:
    """Prune at once to where the experiment's schedule would end."""
    asked = experiment.pruning
    if asked.dense:
        return
    targets = target_networks(module)
    pruner = Pruner(
        module,
        PruningConfig(
            sparsity=asked.sparsity,
            granularity=asked.granularity,
            distribution=asked.distribution,
            protect=asked.protect,
            groups={
                name: {key: block[key] for key in _GROUP_KEYS if key in block}
                for name, block in asked.groups.items()
            },
        ),
        exclude=targets,
        groups=group_of,
        heads=heads_of(module, targets=targets),
        sensors=lambda: sensors_of(module, targets=targets),
    )
    pruner.prune_to()
