"""Optimizer moments and target networks, as sparse as the weights that they belong to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from rayprune.pruning.pruner import Pruner
from rayprune.pruning.reports import MaskChange
from rayprune.rllib.algorithms.target_networks import target_parameters
from rayprune.rllib.learner.optimizers import moments


def follow(pruner: Pruner, optimizers: Sequence[Optimizer], change: MaskChange) -> None:
    """Have moments and target networks follow a mask change.

    Args:
        pruner: of the module, after the change.
        optimizers: those that step it.
        change: what has grown back starts without a past; what was rescaled is in targets too.
    """
    parameters = pruner.masked_parameters
    for name, parameter in parameters.items():
        for moment in moments(optimizers, parameter):
            pruner.mask_tensors({parameter: moment})
            if name in change.regrown:
                moment.masked_fill_(change.regrown[name], 0)
    for name, target in masked_targets(pruner):
        pruner.mask_tensors({parameters[name]: target})
        if name in change.scales:
            target.mul_(change.scales[name])
    _hold_identity_layers(pruner, optimizers)


def mask_moments(pruner: Pruner, optimizers: Sequence[Optimizer]) -> None:
    """Zero what is pruned in moments, in case someone has written it."""
    pruner.mask_along(lambda parameter: moments(optimizers, parameter))
    _hold_identity_layers(pruner, optimizers)


def mask_targets(pruner: Pruner) -> None:
    """Zero what is pruned in target networks, in case someone has written it."""
    copies: dict[int, list[Tensor]] = {}
    for own, copy in target_parameters(pruner.module):
        copies.setdefault(id(own), []).append(copy.data)
    if copies:
        pruner.mask_along(lambda parameter: copies.get(id(parameter), ()))


def masked_targets(pruner: Pruner) -> Iterator[tuple[str, Tensor]]:
    """Yield each target tensor with the name of the source parameter that masks it."""
    names = {id(p): name for name, p in pruner.masked_parameters.items()}
    for own, copy in target_parameters(pruner.module):
        if id(own) in names:
            yield names[id(own)], copy.data


@torch.no_grad()
def _hold_identity_layers(pruner: Pruner, optimizers: Sequence[Optimizer]) -> None:
    """Zero the moments of layers that are the identity, biases too, and have targets be so."""
    values = {id(parameter): value for parameter, value in pruner.bypasses.fixed()}
    if not values:
        return
    for parameter, _ in pruner.bypasses.fixed():
        for moment in moments(optimizers, parameter):
            moment.zero_()
    for own, copy in target_parameters(pruner.module):
        if id(own) in values:
            copy.copy_(values[id(own)])
