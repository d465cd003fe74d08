"""A plain torch module as a policy."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn

from rayprune.errors import InputError
from rayprune.policies import policy_of

FOUR, TWO = gym.spaces.Box(-1, 1, (4,)), gym.spaces.Discrete(2)
ARM = gym.spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 1.0], np.float32))


class Constant(nn.Module):
    """Gives the same for each observation."""

    def __init__(self, *values):
        super().__init__()
        self.values = nn.Parameter(torch.tensor(values))

    def forward(self, observation):
        first = observation["seen"] if isinstance(observation, dict) else observation
        return self.values.expand(first.shape[0], -1)


def test_the_likeliest_choice_is_taken():
    action, logits = policy_of(Constant(0.0, 2.0), FOUR, TWO)(torch.zeros(3, 4))
    assert action.tolist() == [1, 1, 1]
    assert logits.tolist() == [[0.0, 2.0]] * 3


@pytest.mark.parametrize(("squash", "expected"), [(False, [2.0, 0.0]), (True, [2.0, 0.5])])
def test_continuous_actions_are_clipped_or_squashed_into_their_bounds(squash, expected):
    action, _ = policy_of(Constant(50.0, 0.0), FOUR, ARM, squash=squash)(torch.zeros(1, 4))
    assert action[0].tolist() == expected


def test_observations_reach_the_module_nested_and_normalised():
    space = gym.spaces.Dict(seen=gym.spaces.Box(-1, 1, (2,)), other=gym.spaces.Discrete(3))
    policy = policy_of(
        _Sum(), space, gym.spaces.Box(-9, 9, (2,)), normalise={"seen": ([1.0, 0.0], [2.0, 1.0])}
    )
    assert [port.name for port in policy.interface.observations] == ["obs.other", "obs.seen"]
    action, _ = policy(torch.tensor([2]), torch.tensor([[3.0, 5.0]]))
    assert action.tolist() == [[3.0, 7.0]]  # (3 - 1) / 2 + 2, and 5 + 2


class _Sum(nn.Module):
    def forward(self, observation):
        return observation["seen"] + observation["other"].unsqueeze(1)


@pytest.mark.parametrize(
    ("module", "spaces", "told"),
    [
        (
            Constant(0.0, 1.0, 2.0),
            (FOUR, TWO),
            r"shape \[2, 2\] for 2 observations.*gives \[2, 3\]",
        ),
        (nn.Linear(3, 2), (FOUR, TWO), "can't take a batch of Box"),
        (Constant(0.0), (FOUR, None), "needs `observation_space` and `action_space`"),
        (object(), (FOUR, TWO), "takes a torch.nn.Module, but got a object"),
        (
            Constant(0.0, 1.0),
            (gym.spaces.Dict({"arm.angle": FOUR}), TWO),
            r"the key 'arm\.angle' can't be exported: .* keys have no dot",
        ),
        (Constant(0.0), (FOUR, gym.spaces.MultiBinary(1)), "can't be exported: Discrete, and"),
        (Constant(0.0), (FOUR, gym.spaces.Box(-np.inf, 1, (1,))), "bounds that are infinite"),
        (Constant(0.0), (FOUR, gym.spaces.Discrete(2, start=1)), "don't begin at 0"),
        (Constant(0.0), (FOUR, gym.spaces.MultiDiscrete([2], start=[1])), "don't begin at 0"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_would(module, spaces, told):
    with pytest.raises(InputError, match=told):
        policy_of(module, *spaces, squash=isinstance(spaces[1], gym.spaces.Box))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"normalise": (np.zeros(3), np.ones(3))}, r"statistics of `obs` are of shape \[3\]"),
        ({"normalise": (np.zeros(4), np.array([1, 1, 0, 1]))}, "deviations above 0"),
        ({"normalise": (np.full(4, np.nan), np.ones(4))}, "must be finite"),
        ({"normalise": (np.zeros(4),)}, r"must be a pair of arrays, \(mean, standard deviation\)"),
        ({"normalise": ("a", "b")}, "must be a pair of arrays"),
        ({"clip": 0.0}, "`clip` must be above 0"),
        ({"squash": True}, r"`squash` is for continuous actions.*are of Discrete\(2\)"),
    ],
)
def test_statistics_that_no_observation_has_are_refused(given, told):
    with pytest.raises(InputError, match=told):
        policy_of(Constant(0.0, 1.0), FOUR, TWO, **given)


def test_statistics_of_a_nested_part_are_that_parts():
    inner = gym.spaces.Dict(angle=gym.spaces.Box(-1, 1, (2,)), speed=gym.spaces.Box(-1, 1, (2,)))
    space = gym.spaces.Dict(arm=inner)
    net = _Speed()
    policy = policy_of(net, space, TWO, normalise={"arm.speed": ([1.0, 1.0], [1.0, 1.0])})
    assert policy(torch.ones(1, 2), torch.full((1, 2), 3.0))[1].tolist() == [[2.0, 2.0]]
    with pytest.raises(InputError, match=r"statistics of \['arm'\], but none in"):
        policy_of(net, space, TWO, normalise={"arm": ([0.0, 0.0], [1.0, 1.0])})


class _Speed(nn.Module):
    def forward(self, observation):
        return observation["arm"]["speed"]


def test_a_policy_is_where_its_network_is_and_does_not_learn():
    """On the device without memory, since there may be no other."""
    net = nn.Sequential(nn.Linear(4, 2, device="meta"), nn.Dropout())
    policy = policy_of(net, FOUR, ARM, normalise=(np.zeros(4), np.ones(4)))
    assert {held.device.type for held in policy.buffers()} == {"meta"}
    assert policy(torch.zeros(3, 4, device="meta"))[0].shape == (3, 2)
    assert not any(module.training for module in policy.network.modules())
