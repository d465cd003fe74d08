"""From a config and minibatches to the evidence that the config's criterion asks for."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from torch import nn

from rayprune.pruning.config import PruningConfig
from rayprune.pruning.evidence.batches import MEASURED, gather, minibatches, sample_count
from rayprune.pruning.evidence.coalitions import Coalitions
from rayprune.pruning.evidence.objectives import Objective
from rayprune.pruning.evidence.reduce import Across, Alone
from rayprune.pruning.evidence.table import GRADIENT, Evidence
from rayprune.pruning.granularity.neuron import unit_parts
from rayprune.pruning.layers.prunable import PrunableLayer

COALITIONS = "coalitions"
TOLD_BY_BATCHES: frozenset[str] = MEASURED | {COALITIONS}


def measured_for(config: PruningConfig) -> frozenset[str]:
    """Return what must be gathered from minibatches for a config, while training.

    Under the objective ``loss`` the gradients are those that training itself computes.

    >>> sorted(measured_for(PruningConfig(sparsity=0.5, criterion="snip")))
    ['gradient']
    """
    wanted = config.chosen.criterion.evidence & TOLD_BY_BATCHES
    return wanted - {GRADIENT} if config.evidence["objective"] == "loss" else wanted


def measure(
    module: nn.Module,
    layers: Sequence[PrunableLayer],
    config: PruningConfig,
    batch: Any,
    loss: Objective | Callable[[nn.Module, Any], Any] | None,
    across: Across | None = None,
    wanted: frozenset[str] | None = None,
) -> Evidence:
    """Gather what a config's criterion asks for.

    Args:
        module: what is pruned.
        layers: those of its layers that are to be scored.
        config: gives the criterion and how much to look at.
        batch: a minibatch, or an iterable of them.
        loss: ``f(module, minibatch) -> scalar``, or an objective that knows more.
        across: brings several processes together.
        wanted: what to gather; None for all that the criterion asks for and batches can tell.

    Raises:
        InputError: the criterion needs what wasn't given.
    """
    across = Alone() if across is None else across
    wanted = config.chosen.criterion.evidence & TOLD_BY_BATCHES if wanted is None else wanted
    if not wanted:
        return Evidence()
    objective = Objective.of(loss)
    seen = list(limited(minibatches(batch), config))
    found = gather(module, layers, wanted, seen, objective, across)
    if COALITIONS in wanted:
        found |= Evidence({COALITIONS: _coalitions(module, layers, seen, objective, across)})
    return found


def limited(batches: Iterable[Any], config: PruningConfig) -> Iterator[Any]:
    """Yield minibatches while the config's limits last; at least one."""
    observations = 0
    for index, batch in enumerate(batches):
        observations += sample_count(batch)
        within = observations <= config.evidence["observations"]
        if index and (index >= config.evidence["minibatches"] or not within):
            return
        yield batch


def _coalitions(
    module: nn.Module,
    layers: Sequence[PrunableLayer],
    batches: Sequence[Any],
    objective: Objective,
    across: Across,
) -> dict[str, Coalitions]:
    # On a copy: an EnvRunner may fetch the weights while units are out.
    twin = copy.deepcopy(module)
    found: dict[str, Coalitions] = {}
    for layer in layers:
        inner: Any = twin.get_submodule(layer.name)
        own = dataclasses.replace(layer, module=inner)
        for part in unit_parts(inner, own.parameters):
            of_group = objective.of_group(layer.group)
            name = layer.full_name(part.parameters[0])
            found[name] = Coalitions(twin, own, part, batches, of_group, across)
    return found
