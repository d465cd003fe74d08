"""What on-policy Learners make of episodes is what RLlib's connectors make of them."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete
from ray.rllib.connectors import learner as rllib
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.postprocessing.value_predictions import compute_value_targets

from rayprune.rllib import prune
from rayprune.rllib.connectors import on_policy
from rayprune.rllib.connectors.on_policy import AddOneTsToEpisodesAndTruncate
from tests.rllib import configs
from tests.rllib.sampling.runners import assert_same, of_episode
from tests.rllib.sampling.test_env_runner import Ends

CNN = {"conv_filters": [[4, 3, 2], [8, 3, 2]]}
LSTM = {"use_lstm": True, "lstm_cell_size": 8, "max_seq_len": 5}


def batch_of(learner: Any, kinds: Any, episodes: list[Any]) -> Any:
    connector = learner._learner_connector
    connector.connectors[0].__class__ = kinds.AddOneTsToEpisodesAndTruncate
    connector.connectors[-1].__class__ = kinds.GeneralAdvantageEstimation
    return connector(
        rl_module=learner.module,
        batch={},
        episodes=episodes,
        shared_data={},
        metrics=learner.metrics,
    )


@pytest.mark.parametrize("reward", [np.float64, np.float32])
@pytest.mark.parametrize(("env", "model"), [(Ends, {}), (Ends, LSTM), ("rayprune-random", CNN)])
def test_batches_and_episodes_are_rllibs(env: Any, model: Any, reward: Any) -> None:
    kinds = {"observation_space": Box(-1, 1, (10, 10, 3)), "action_space": Discrete(3)}
    config = configs.ppo(env, **model).environment(env_config=kinds if model is CNN else {})
    config = prune(config, configs.pruning())
    runner: Any = SingleAgentEnvRunner(config=config, worker_index=0)
    learner = config.build_learner(env=runner.env)
    learner.build()
    kinds = [type(piece) for piece in learner._learner_connector.connectors]
    assert kinds[0] is AddOneTsToEpisodesAndTruncate
    assert kinds[-1] is on_policy.GeneralAdvantageEstimation
    runner.sample(num_timesteps=9)
    episodes = runner.sample(num_timesteps=31)
    for episode in episodes:
        episode.rewards.data = episode.rewards.data.astype(reward)
    others = copy.deepcopy(episodes)
    theirs = batch_of(learner, rllib, others)
    ours = batch_of(learner, on_policy, episodes)
    assert_same(theirs, ours)
    assert_same([*map(of_episode, others)], [*map(of_episode, episodes)])


def test_observations_of_several_parts_are_left_to_rllib() -> None:
    space = Dict(a=Box(-1, 1, (2,)), b=Discrete(2))
    episodes = []
    for _ in range(2):
        episode = SingleAgentEpisode(observation_space=space, action_space=Discrete(2))
        episode.add_env_reset(space.sample())
        for _ in range(3):
            episode.add_env_step(space.sample(), 1, 0.5, extra_model_outputs={"x": 1.0})
        episodes.append(episode.to_numpy())
    others, batches = copy.deepcopy(episodes), []
    for kind, held in (
        (rllib.AddOneTsToEpisodesAndTruncate, others),
        (AddOneTsToEpisodesAndTruncate, episodes),
    ):
        batches.append(kind()(rl_module=None, batch={}, episodes=held, shared_data={}))
    assert_same([*map(of_episode, others)], [*map(of_episode, episodes)])
    assert {name: set(held) for name, held in batches[0].items()} == {
        name: set(held) for name, held in batches[1].items()
    }


@pytest.mark.parametrize("ends", [np.bool_, np.float32])
@pytest.mark.parametrize("reward", [np.float32, np.float64])
def test_value_targets_are_rllibs_to_the_bit(ends: Any, reward: Any) -> None:
    generator = np.random.default_rng(0)
    values = generator.normal(size=300).astype(np.float32)
    rewards = (generator.normal(size=300) * 10.0 ** generator.integers(-6, 6, 300)).astype(reward)
    flags = [(generator.random(300) < share).astype(ends) for share in (0.05, 0.1)]
    values[40], rewards[90], rewards[200] = np.inf, np.nan, -np.inf
    discounts = {"gamma": 0.97, "lambda_": 0.93}
    with np.errstate(all="ignore"):
        theirs = compute_value_targets(values, rewards, *flags, **discounts)
        ours = on_policy.value_targets(values, rewards, *flags, **discounts)
    assert ours.dtype == theirs.dtype
    # One NaN is as good as another, whatever its sign.
    numbers = ~np.isnan(theirs)
    assert 100 < numbers.sum() < 300
    assert np.array_equal(np.isnan(ours), ~numbers)
    assert ours[numbers].tobytes() == theirs[numbers].tobytes()
