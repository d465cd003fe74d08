"""The rows that all forwards of an RLModule are run on, which compaction must keep."""

from __future__ import annotations

from typing import Any

import torch
from ray.rllib.core.columns import Columns
from torch.utils._pytree import tree_map

ROWS = 2
"""Rows of a batch that is run: one alone would not show which axis is the batch's."""


def example_of(batch: dict[str, Any]) -> dict[str, Any]:
    """Return copies of the first rows of what a forward reads of a Learner's minibatch."""
    read = {key: batch[key] for key in (Columns.OBS, Columns.STATE_IN) if key in batch}
    actions = batch.get(Columns.ACTIONS)
    if isinstance(actions, torch.Tensor) and actions.is_floating_point():
        # Of critics they are an input. Made up in the forward they would be a constant, and fold.
        read[Columns.ACTIONS] = actions
    rows: dict[str, Any] = tree_map(lambda leaf: leaf[:ROWS].detach().clone(), read)
    return rows
