"""Moments and target networks of layers that have become the identity."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from rayprune.pruning.pruner import Pruner
from rayprune.rllib.learner.optimizers import moments


@torch.no_grad()
def hold_bypassed(
    pruner: Pruner,
    optimizers: Sequence[torch.optim.Optimizer],
    targets: Sequence[tuple[nn.Module, nn.Module]],
) -> None:
    """Zero the moments of bypassed layers, biases included, and bypass them in target networks.

    Args:
        pruner: of the module.
        optimizers: those that step it.
        targets: pairs of source and target networks in it.
    """
    values = {id(parameter): value for parameter, value in pruner.bypasses.fixed()}
    if not values:
        return
    for parameter, _ in pruner.bypasses.fixed():
        for moment in moments(list(optimizers), parameter):
            moment.zero_()
    for source, target in targets:
        for held, copy in zip(source.parameters(), target.parameters(), strict=True):
            if id(held) in values:
                copy.copy_(values[id(held)])
