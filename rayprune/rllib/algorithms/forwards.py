"""All that an algorithm computes with an RLModule, as one forward: what compaction must keep."""

from __future__ import annotations

from typing import Any

import torch
from ray.rllib.algorithms.dqn.default_dqn_rl_module import DefaultDQNRLModule
from ray.rllib.algorithms.sac.default_sac_rl_module import DefaultSACRLModule
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis import ValueFunctionAPI
from torch.utils._pytree import tree_map

from rayprune.rllib.algorithms.target_networks import target_pairs

ROWS = 2
"""Rows of a batch that is run: one alone would not show which axis is the batch's."""


def run_all(module: Any, batch: dict[str, Any]) -> list[Any]:
    """Return the outputs of a module's policy, values and target networks.

    Args:
        module: a TorchRLModule as a Learner holds it, not wrapped.
        batch: as `example_of` gives it.
    """
    if isinstance(module, DefaultSACRLModule):
        return _run_sac(module, batch)
    if isinstance(module, DefaultDQNRLModule):
        return [module.compute_q_values(batch), module.forward_target(batch)]
    outputs: list[Any] = [module._forward_inference(batch)]
    if isinstance(module, ValueFunctionAPI):
        outputs.append(module.compute_values(batch))
    if target_pairs(module):
        outputs.append(module.forward_target(batch))
    return outputs


def example_of(batch: dict[str, Any]) -> dict[str, Any]:
    """Return copies of the first rows of what a forward reads of a Learner's minibatch."""
    read = {key: batch[key] for key in (Columns.OBS, Columns.STATE_IN) if key in batch}
    actions = batch.get(Columns.ACTIONS)
    if isinstance(actions, torch.Tensor) and actions.is_floating_point():
        # Of critics they are an input. Made up in the forward they would be a constant, and fold.
        read[Columns.ACTIONS] = actions
    rows: dict[str, Any] = tree_map(lambda leaf: leaf[:ROWS].detach().clone(), read)
    return rows


def _run_sac(module: Any, batch: dict[str, Any]) -> list[Any]:
    policy = module._forward_inference(batch)
    return [policy, module.compute_q_values(batch), module.forward_target(batch)]
