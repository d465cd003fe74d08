"""Columns of a replay buffer as the batch that a Learner takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.policy.sample_batch import MultiAgentBatch
from ray.rllib.utils.torch_utils import convert_to_torch_tensor

from rayprune.rllib.learner.updates.minibatches import Minibatch

Array = npt.NDArray[Any]


def batch_of(columns: Mapping[str, Array], device: Any) -> MultiAgentBatch:
    """Return the batch that RLlib's Learner makes of the same episodes.

    Args:
        columns: of transitions, each of shape ``(batch, ...)``.
        device: the Learner's.
    """
    count = len(columns["weights"])
    tensors = {name: _tensor(column, device) for name, column in columns.items()}
    return MultiAgentBatch({DEFAULT_MODULE_ID: Minibatch(tensors, count)}, count)


def _tensor(column: Array, device: Any) -> Any:
    """Return what RLlib's ``convert_to_torch_tensor`` makes of a column."""
    if type(column) is not np.ndarray or column.dtype == object:
        return convert_to_torch_tensor(column, device=device)
    tensor = torch.from_numpy(column)
    halved = tensor.is_floating_point() and tensor.dtype != torch.float16
    return (tensor.float() if halved else tensor).to(device)
