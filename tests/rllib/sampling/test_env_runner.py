"""The lean EnvRunner gives what RLlib's own gives: episodes, metrics, and random numbers drawn."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete, Tuple
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from rayprune.rllib import prune
from rayprune.rllib.connectors.observations import connect
from rayprune.rllib.normalisation import normalise
from tests.rllib import configs
from tests.rllib.sampling.runners import same


class Ends(gym.Env[Any, Any]):
    """Ends after 3 steps, terminated or truncated or both by turns; infos hold its steps."""

    observation_space = Box(-9, 9, (2,), np.float64)
    action_space = Discrete(3)

    def __init__(self, config: Any = None) -> None:
        self.episodes = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.steps, self.episodes = 0, self.episodes + 1
        return self.np_random.normal(size=2), {"began": self.episodes}

    def step(self, action: Any) -> Any:
        self.steps += 1
        done, turn = self.steps == 3 + self.episodes % 2, self.episodes % 3
        observation = self.np_random.normal(size=2) + action
        infos = {"steps": self.steps} if self.steps % 2 else {}
        return observation, float(action), done and turn != 1, done and turn != 0, infos


def of(config: AlgorithmConfig, **env_runners: Any) -> AlgorithmConfig:
    """A pruning config."""
    return prune(config.env_runners(**env_runners), configs.pruning())


def test_cart_poles_of_ppo() -> None:
    runner = same(lambda: of(configs.ppo(), num_envs_per_env_runner=8, rollout_fragment_length=25))
    assert not runner._acting.reason


@pytest.mark.parametrize(
    ("env", "envs", "length"),
    [(Ends, 1, 1), (Ends, 3, 7), (Ends, 2, 20), ("Pendulum-v1", 2, 101)],
)
def test_episodes_that_end_in_every_way(env: Any, envs: int, length: int) -> None:
    calls = [{}] * 4
    runner = same(
        lambda: of(configs.ppo(env), num_envs_per_env_runner=envs, rollout_fragment_length=length),
        calls,
    )
    assert not runner._acting.reason


@pytest.mark.parametrize("make", [configs.dqn, configs.sac])
def test_one_environment_and_one_step_a_call(make: Any) -> None:
    runner = same(lambda: of(make(), rollout_fragment_length=1), [{}] * 30)
    assert not runner._acting.reason


def test_recurrent_states() -> None:
    lstm = {"use_lstm": True, "lstm_cell_size": 8, "max_seq_len": 5}
    runner = same(lambda: of(configs.ppo(Ends, **lstm), rollout_fragment_length=8))
    assert not runner._acting.reason


@pytest.mark.parametrize(
    "space",
    [
        Box(0, 255, (3, 10, 10), np.uint8),
        Box(-1, 1, (2, 2), np.float64),
        Box(-1, 1, (), np.float32),
        Discrete(3, start=1),
        Tuple((Discrete(3), Dict(a=Box(0, 1, (2,)), b=MultiDiscrete([2, 3])))),
    ],
)
def test_observations_that_are_encoded(space: gym.Space[Any]) -> None:
    def make() -> AlgorithmConfig:
        nets = {"conv_filters": [[4, 3, 2]]} if len(space.shape or ()) == 3 else {}
        config = configs.ppo("rayprune-random", **nets)
        kinds = {"observation_space": space, "action_space": Discrete(2, start=-1)}
        config.environment(env_config=kinds)
        connect(config, raw=False)
        return of(config, rollout_fragment_length=15)

    assert not same(make)._acting.reason


@pytest.mark.parametrize("ours", [True, False])
@pytest.mark.parametrize(
    "space",
    [
        Box(-2, 3, (2,), np.float32),
        Box(-2, 3, (2,), np.float64),
        Box(-np.inf, np.inf, (2,), np.float32),
        MultiDiscrete([2, 3]),
    ],
)
def test_actions_of_every_kind(space: gym.Space[Any], ours: bool) -> None:
    def make() -> AlgorithmConfig:
        config = configs.ppo("rayprune-random")
        kinds = {"observation_space": Box(-1, 1, (3,)), "action_space": space}
        config.environment(env_config=kinds)
        if ours:
            connect(config, raw=False)
        return of(config, rollout_fragment_length=15)

    assert not same(make)._acting.reason


@pytest.mark.parametrize(
    # Of observations of 64 bits the statistics see as much as the network does.
    ("make", "length"),
    [(configs.ppo, 30), (lambda: configs.ppo(Ends), 9), (configs.sac, 1)],
)
def test_normalised_observations_and_rewards(make: Any, length: int) -> None:
    runner = same(
        lambda: of(normalise(make(), rewards=True), rollout_fragment_length=length), [{}] * 5
    )
    assert not runner._acting.reason


def test_whole_episodes_and_greedy_actions_and_resets() -> None:
    calls: list[Any] = [
        {"num_episodes": 3},
        {"num_timesteps": 11},
        {"num_timesteps": 5, "explore": False},
        {"num_timesteps": 7, "force_reset": True},
        {"num_episodes": 5, "explore": False},
        {"num_timesteps": 9, "random_actions": True},
        {"num_timesteps": 9},
    ]
    same(lambda: of(configs.ppo(Ends), num_envs_per_env_runner=3), calls)


@pytest.mark.parametrize("lookback", [0, 1, 4])
@pytest.mark.parametrize("to_numpy", [True, False])
def test_what_episodes_look_back_to(lookback: int, to_numpy: bool) -> None:
    def make() -> AlgorithmConfig:
        return of(
            configs.ppo(Ends),
            rollout_fragment_length=2,
            episode_lookback_horizon=lookback,
            episodes_to_numpy=to_numpy,
        )

    same(make, [{}] * 6)


def test_a_vector_that_is_no_list_of_environments() -> None:
    def make() -> AlgorithmConfig:
        return of(
            configs.ppo(),
            num_envs_per_env_runner=5,
            gym_env_vectorize_mode="vector_entry_point",
            rollout_fragment_length=30,
        )

    assert not same(make)._acting.reason


def test_a_module_that_arrives_in_mid_run_acts_next() -> None:
    calls: list[Any] = [{}, lambda runner: runner.make_module(), {}, {}]
    same(lambda: of(configs.ppo(Ends), rollout_fragment_length=5), calls)
