"""Lean updates of DQN and SAC learn the same to the bit, though they log once an iteration."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME, TD_ERROR_KEY

from tests.rllib import configs
from tests.rllib.learner.updates import twins

pytestmark = pytest.mark.timeout(120)

ITERATION = 6
ATOMS = {"num_atoms": 5, "v_min": -5.0, "v_max": 5.0}


def dqn(**training: Any) -> Any:
    return twins.spaces(configs.dqn(**training), twins.VECTOR, twins.DISCRETE)


def sac(**training: Any) -> Any:
    return twins.spaces(configs.sac(), twins.VECTOR, twins.CONTINUOUS).training(**training)


CASES = {
    "DQN": dqn(),
    "not double, not dueling": dqn(double_q=False, dueling=False),
    "distributional": dqn(**ATOMS),
    "soft targets": dqn(tau=0.01),
    "SAC": sac(),
    "SAC, clipped": sac(grad_clip=0.5),
    "TQC": twins.spaces(configs.tqc(), twins.VECTOR, twins.CONTINUOUS),
}


def iterations(learner: Any, count: int, **quiet: Any) -> tuple[Any, list[Any], list[Any]]:
    """What was learned, the TD errors of each update, and what each iteration logged."""
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    errors, logged = [], []
    for number in range(count * ITERATION):
        is_last = number % ITERATION == ITERATION - 1
        learner.update(
            batch=twins.replayed_batch(learner.config, 16, seed=number),
            timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: number},
            _no_metrics_reduce=True,
            **({} if is_last else quiet),
        )
        errors.append({mid: e.clone() for mid, e in learner.take_td_errors().items()})
        if is_last:
            logged.append(learner.metrics.reduce())
    return twins.learned(learner), errors, logged


@pytest.mark.parametrize("case", CASES)
def test_the_same_is_learned_and_logged(case: str) -> None:
    first, second = twins.twins(CASES[case], plasticity=None)
    expected, found = iterations(first, 2), iterations(second, 2, logs=False)
    assert twins.differences(expected[0], found[0]) == []
    assert twins.differences(expected[1], found[1]) == []
    assert twins.differences(expected[2], found[2]) == []
    assert second._replays._recorded is not None, "nothing was recorded"


def test_td_errors_are_taken_once_and_logged_if_nobody_takes_them() -> None:
    _, lean = twins.twins(dqn(), plasticity=None)
    batch = twins.replayed_batch(lean.config, 16, seed=0)
    result = lean.update(batch=batch)
    assert len(result[DEFAULT_MODULE_ID][TD_ERROR_KEY]) == 1
    assert lean.take_td_errors() == {}
    lean.update(batch=batch, _no_metrics_reduce=True)
    assert lean.take_td_errors()[DEFAULT_MODULE_ID].shape == (16,)
    assert lean.take_td_errors() == {}
    assert len(lean.metrics.reduce()[DEFAULT_MODULE_ID][TD_ERROR_KEY]) == 0


def replaced(learner: Any) -> None:
    for parameter in learner._params.values():
        parameter.data = parameter.data * 0.9


def frozen(learner: Any) -> None:
    for parameter in [*learner._params.values()][:2]:
        parameter.requires_grad_(False)


def hooked(learner: Any) -> None:
    for parameter in learner._params.values():
        parameter.register_hook(lambda gradient: gradient * 0.5)


@pytest.mark.parametrize("intervene", [replaced, frozen, hooked])
def test_what_others_do_to_weights_between_updates_counts_at_once(intervene: Any) -> None:
    pair = twins.twins(dqn(tau=0.1), plasticity=None)
    for learner, quiet in zip(pair, ({}, {"logs": False}), strict=True):
        iterations(learner, 1, **quiet)
        for number in range(ITERATION - 1):
            if number in (2, 4):
                intervene(learner)
            learner.update(
                batch=twins.replayed_batch(learner.config, 16, seed=number),
                timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: 100 * (number + 1)},
                _no_metrics_reduce=True,
                **quiet,
            )
    assert twins.differences(*(learner.get_state()["rl_module"] for learner in pair)) == []
