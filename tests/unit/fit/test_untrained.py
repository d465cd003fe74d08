"""What is counted of an untrained network is no more than its file will hold."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from rayprune.deploy.export.shrink import shrink
from rayprune.deploy.policy.capture import plain_copy
from rayprune.fit.untrained import left_of
from tests.doubles import policies


@pytest.mark.parametrize("density", [0.1, pytest.param(0.04, marks=pytest.mark.slow)])
def test_no_more_is_counted_than_is_left_when_dead_units_are_gone(density: float) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3))
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.dim() > 1:
                parameter.mul_(torch.rand_like(parameter) < density)
    counted = left_of(net)
    policy = plain_copy(policies.discrete(net))
    given = [np.random.default_rng(0).standard_normal((64, 4)).astype(np.float32)]
    held = [*shrink(policy, given).policy.parameters()]
    weights = sum(int(each.count_nonzero()) for each in held if each.dim() > 1)
    assert counted.weights <= weights
    assert counted.parameters <= sum(int(each.count_nonzero()) for each in held)
    assert counted.weights < sum(int((p != 0).sum()) for p in net.parameters() if p.dim() > 1)
