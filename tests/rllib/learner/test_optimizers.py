"""Fused Adam changes no result beyond rounding, and no choice of the user's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ray.rllib.algorithms.ppo import PPOConfig

from rayprune.rllib.learner.optimizers import checks_spared, fuse_adam, moments


def trained(kind: type[torch.optim.Optimizer], fuse: bool, **options: Any) -> list[torch.Tensor]:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))
    optimizer = kind(net.parameters(), lr=1e-2, **options)
    if fuse:
        fuse_adam([optimizer])
    x = torch.randn(64, 8)
    for _ in range(50):
        optimizer.zero_grad()
        ((net(x).squeeze(-1) - x.sum(-1)) ** 2).mean().backward()
        optimizer.step()
    return [p.detach() for p in net.parameters()]


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
def test_fused_adam_learns_the_same_weights_up_to_rounding(
    kind: type[torch.optim.Optimizer],
) -> None:
    for plain, fused in zip(trained(kind, False), trained(kind, True), strict=True):
        torch.testing.assert_close(plain, fused, rtol=1e-4, atol=1e-5)


def test_only_adam_of_a_user_who_chose_nothing_else_is_fused() -> None:
    parameter = torch.nn.Parameter(torch.zeros(2))
    chosen = torch.optim.Adam([parameter], foreach=True)
    refused = torch.optim.Adam([parameter], fused=False)
    other = torch.optim.SGD([parameter], lr=0.1)
    default = torch.optim.Adam([parameter])
    fuse_adam([chosen, refused, other, default])
    assert not chosen.param_groups[0]["fused"]
    assert not refused.param_groups[0]["fused"]
    assert not other.param_groups[0].get("fused")
    assert default.param_groups[0]["fused"] is True


def test_moments_are_the_state_shaped_like_the_parameter() -> None:
    parameter = torch.nn.Parameter(torch.ones(3, 2))
    optimizer = torch.optim.Adam([parameter])
    parameter.sum().backward()
    optimizer.step()
    found = list(moments([optimizer], parameter))
    assert len(found) == 2
    assert all(moment.shape == (3, 2) for moment in found)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_rllibs_checks_are_spared_only_while_every_gradient_is_finite(value: float) -> None:
    config = PPOConfig()
    config.freeze()
    good, bad = torch.ones(3), torch.tensor([1.0, value])
    with checks_spared(config, {"a": good, "b": None}):
        assert config.torch_skip_nan_gradients is True
    assert config.torch_skip_nan_gradients is False
    with checks_spared(config, {"a": good, "b": bad}):
        assert config.torch_skip_nan_gradients is False


def test_the_checks_are_back_after_an_error() -> None:
    config = PPOConfig()
    with pytest.raises(KeyError), checks_spared(config, {"a": torch.ones(1)}):
        raise KeyError
    assert config.torch_skip_nan_gradients is False
