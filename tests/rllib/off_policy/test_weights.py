"""Weights on their way from the Learner to the EnvRunner beside it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from rayprune.rllib import prune
from rayprune.rllib.off_policy.tensors import HeldTensors
from rayprune.rllib.off_policy.weights import LocalWeights
from tests.rllib.configs import learner_of
from tests.rllib.off_policy.runs import dqn


@pytest.fixture
def algorithm() -> Any:
    return prune(dqn(), {"sparsity": 0.0, "horizon": 1000}).build_algo()


def _acts_with_the_learners(algorithm: Any) -> bool:
    learnt = learner_of(algorithm).module["default_policy"].state_dict()
    acting = algorithm.env_runner.module.state_dict()
    return all(torch.equal(learnt[name], held) for name, held in acting.items())


def _learn(algorithm: Any) -> None:
    learner = learner_of(algorithm)
    learner._weights_seq_no += 1
    with torch.no_grad():
        for parameter in learner.module["default_policy"].parameters():
            parameter.add_(1.0)


def test_weights_come_only_when_they_are_brought(algorithm: Any) -> None:
    weights = LocalWeights(algorithm)
    for _ in range(3):  # by RLlib's way first, which pairs the tensors
        _learn(algorithm)
        weights.have_changed()
        assert not _acts_with_the_learners(algorithm)
        weights.bring()
        assert _acts_with_the_learners(algorithm)
        assert algorithm.env_runner._weights_seq_no == learner_of(algorithm)._weights_seq_no


def test_weights_of_replaced_layers_come_too(algorithm: Any) -> None:
    weights, learner = LocalWeights(algorithm), learner_of(algorithm)
    for _ in range(2):
        _learn(algorithm)
        weights.have_changed()
        weights.bring()
    module = learner.module["default_policy"]
    layer = next(layer for layer in module.encoder.modules() if isinstance(layer, nn.Linear))
    layer.weight = nn.Parameter(torch.full_like(layer.weight, 7.0))
    for _ in range(2):
        _learn(algorithm)
        weights.have_changed()
        weights.bring()
        assert _acts_with_the_learners(algorithm)
    layer.weight.data = torch.full_like(layer.weight, 80.0)
    _learn(algorithm)
    weights.have_changed()
    weights.bring()
    assert _acts_with_the_learners(algorithm)


def test_weights_that_others_may_write_go_rllibs_way(algorithm: Any) -> None:
    vars(algorithm.config)["callbacks_on_train_result"] = [lambda **_: None]  # it is frozen
    weights = LocalWeights(algorithm)
    assert weights.reason.endswith("may write weights")
    _learn(algorithm)
    weights.have_changed()
    weights.bring()
    assert _acts_with_the_learners(algorithm)


def test_held_tensors_notice_what_is_replaced() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    held = HeldTensors(net)
    assert held.are_of(net)
    assert not held.are_of(nn.Sequential())
    net[0].weight = nn.Parameter(torch.zeros(2, 2))
    assert not held.are_of(net)
    held = HeldTensors(net)
    net[1] = nn.Tanh()
    assert not held.are_of(net)
