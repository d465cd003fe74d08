"""Columns against what the Learners of DQN and SAC make of sampled episodes."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.utils.torch_utils import convert_to_torch_tensor

from rayprune.rllib.replay.n_step_columns import columns_of

from .oracles import Pair
from .streams import VECTOR, Stream

BOX = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)


@pytest.mark.parametrize(
    ("config", "kind", "actions"),
    [(DQNConfig(), "prioritised", gym.spaces.Discrete(3)), (SACConfig(), "uniform", BOX)],
    ids=["DQN", "SAC"],
)
def test_columns_are_what_a_learners_default_connectors_make(
    config: Any, kind: str, actions: Any
) -> None:
    learner = config.build_learner(spaces={DEFAULT_MODULE_ID: (VECTOR, actions)})
    pair = Pair(kind)
    pair.add(Stream(actions=actions).chunks(40))
    episodes = pair.theirs.sample(num_items=16, n_step=2, gamma=0.9, sample_episodes=True)
    columns = columns_of(copy.deepcopy(episodes))
    batch = learner._learner_connector(
        rl_module=learner.module, batch={}, episodes=episodes, shared_data={}
    )[DEFAULT_MODULE_ID]
    assert list(columns) == list(batch)
    for name, column in convert_to_torch_tensor(columns).items():
        assert column.dtype == batch[name].dtype, name
        assert torch.equal(column, batch[name]), name
