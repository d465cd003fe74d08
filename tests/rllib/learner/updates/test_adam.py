"""A bare step of fused Adam is torch's, and is not taken where somebody watches."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

from rayprune.rllib.learner.updates import adam


def stepped(bare: bool, kind: Any, count: int = 3, **options: Any) -> list[torch.Tensor]:
    torch.manual_seed(0)
    parameters = [torch.nn.Parameter(torch.randn(4, 3)), torch.nn.Parameter(torch.randn(3))]
    unused = torch.nn.Parameter(torch.randn(2))
    optimizer = kind([*parameters, unused], lr=0.1, fused=True, **options)
    for _ in range(count):
        for parameter in parameters:
            parameter.grad = torch.randn_like(parameter)
        if bare:
            adam.step(optimizer)
        else:
            optimizer.step()
    held = [
        optimizer.state[p][key] for p in parameters for key in ("exp_avg", "exp_avg_sq", "step")
    ]
    return [*(p.detach() for p in parameters), *held]


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
@pytest.mark.parametrize(
    "options", [{}, {"weight_decay": 0.1}, {"maximize": True}, {"amsgrad": True}]
)
def test_weights_and_moments_are_torch_s(kind: Any, options: Any) -> None:
    pairs = zip(stepped(True, kind, **options), stepped(False, kind, **options), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_hooks_are_called() -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.Adam([parameter], fused=True)
    called = []
    optimizer.register_step_post_hook(lambda *_: called.append(1))
    for _ in range(3):
        parameter.grad = torch.ones(2)
        adam.step(optimizer)
    assert called == [1, 1, 1]


def test_a_scheduler_sees_the_step() -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.Adam([parameter], fused=True)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    parameter.grad = torch.ones(2)
    adam.step(optimizer)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        scheduler.step()
    assert [str(one.message) for one in told] == []  # that the optimizer was not seen to step
    assert optimizer.param_groups[0]["lr"] == 0.0005
