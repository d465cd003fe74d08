"""Columns as a Learner's batch."""

from __future__ import annotations

import numpy as np
import torch
from ray.rllib.utils.torch_utils import convert_to_torch_tensor

from rayprune.rllib.off_policy.batches import batch_of


def test_columns_become_the_tensors_that_rllib_makes_of_them() -> None:
    columns = {
        "obs": np.ones((3, 2), np.float32),
        "image": np.ones((3, 4, 4), np.uint8),
        "actions": np.arange(3),
        "rewards": np.linspace(0, 1, 3),
        "terminateds": np.array([True, False, True]),
        "weights": np.ones(3),
        "nested": {"half": np.ones(3, np.float16)},
    }
    batch = batch_of(columns, torch.device("cpu"))
    expected = convert_to_torch_tensor(columns)
    made = batch.policy_batches["default_policy"]
    assert batch.env_steps() == len(made) == 3
    assert list(made) == list(expected)
    assert made["nested"]["half"].dtype == expected["nested"]["half"].dtype
    for name in columns.keys() - {"nested"}:
        assert made[name].dtype == expected[name].dtype
        assert torch.equal(made[name], expected[name])
