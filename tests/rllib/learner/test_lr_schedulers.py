"""torch's learning-rate schedulers go on after a restore as if nothing had been."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID

from rayprune.rllib import prune
from rayprune.rllib.settings.keys import STATE_KEY
from tests.rllib import configs
from tests.rllib.learner.test_final_masks import spaces_only, update

pytestmark = pytest.mark.timeout(300)

SCHEDULERS: dict[str, Any] = {
    "exponential": [functools.partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.9)],
    "cosine": [functools.partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=10)],
    "warm-up": [functools.partial(torch.optim.lr_scheduler.LinearLR, total_iters=4)],
    "one cycle": [
        functools.partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=1e-2, total_steps=20)
    ],
    "two": [
        functools.partial(torch.optim.lr_scheduler.ConstantLR, factor=0.5, total_iters=4),
        functools.partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.95),
    ],
}


def scheduled(kind: str, lr: float = 1e-3) -> Any:
    config = spaces_only().training(lr=lr)
    config.experimental(_torch_lr_scheduler_classes=SCHEDULERS[kind])
    return prune(config, configs.pruning()).build_learner()


def rate(learner: Any) -> float:
    (optimizer,) = learner._named_optimizers.values()
    return float(optimizer.param_groups[0]["lr"])


def rates(learner: Any, count: int, first: int) -> list[float]:
    found = []
    for seed in range(first, first + count):
        update(learner, seed=seed)
        found.append(rate(learner))
    return found


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_a_restored_learner_schedules_on_from_where_it_was(kind: str) -> None:
    first = scheduled(kind)
    rates(first, 3, 0)
    state, saved = first.get_state(), rate(first)
    second = scheduled(kind)
    second.set_state(state)
    assert rate(second) == saved
    assert rates(second, 3, 3) == rates(first, 3, 3)
    for name, weight in first.module[DEFAULT_MODULE_ID].named_parameters():
        assert torch.equal(weight, dict(second.module[DEFAULT_MODULE_ID].named_parameters())[name])
    first.set_state(state)  # back in time, in the same process
    assert rate(first) == saved


def test_a_clone_schedules_on_from_its_own_base() -> None:
    donor = scheduled("exponential")
    rates(donor, 3, 0)
    clone = scheduled("exponential", lr=2e-3)
    clone.set_state(donor.get_state())
    assert rate(clone) == pytest.approx(2e-3 * 0.9**3)
    assert rates(clone, 1, 0) == [pytest.approx(2e-3 * 0.9**4)]


def test_what_plain_rllib_saved_keeps_its_learning_rate() -> None:
    donor = scheduled("exponential")
    rates(donor, 3, 0)
    state = {key: value for key, value in donor.get_state().items() if key != STATE_KEY}
    fresh = scheduled("exponential")
    fresh.set_state(state)
    assert rate(fresh) == rate(donor)
    assert rates(fresh, 1, 0) == [pytest.approx(1e-3 * 0.9**4)]
