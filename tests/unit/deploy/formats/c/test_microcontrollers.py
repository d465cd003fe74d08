"""Generated C on a Cortex-M4, which QEMU simulates: what it takes, against a loop by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from rayprune.deploy.export.export import export_policy
from rayprune.deploy.targets import target_of
from tests.doubles import policies

LACKING = target_of("cortex-m4").missing()
pytestmark = pytest.mark.skipif(bool(LACKING), reason=f"needs {', '.join(LACKING)}")

BY_HAND = 23_800
"""Instructions of 4-64-64-2 with ReLU as two loops (`benchmarks/c_kernels.py`)."""


def net(sparsity: float) -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 2)]
    with torch.no_grad():
        for layer in layers[::2]:
            layer.weight.mul_(torch.rand(layer.weight.shape) >= sparsity)
    return nn.Sequential(*layers)


@pytest.mark.parametrize("level", ["-O2", "-Os"])
@pytest.mark.parametrize(
    ("sparsity", "instructions", "flash"), [(0.0, 0.7, 19_700), (0.66, 0.5, 9_000)]
)
def test_a_policy_takes_less_than_a_loop_by_hand(level, sparsity, instructions, flash, tmp_path):
    given = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    policy, path = policies.discrete(net(sparsity), choices=2), tmp_path / "policy.c"
    export_policy(policy, path, "c", recorded=[given], about={})
    found = target_of(f"cortex-m4 {level}").measure(path)
    assert found.self_test
    assert found.instructions is not None
    assert found.instructions < instructions * BY_HAND
    assert found.flash_bytes is not None
    assert found.flash_bytes < flash
    assert found.ram_bytes is not None
    assert found.ram_bytes < 1_200
