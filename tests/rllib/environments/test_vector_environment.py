"""Vectors that an environment brings itself: sampled from, checked, and evaluated one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

from rayprune.config import ExperimentConfig
from rayprune.rllib.checkpoints.barrier import _restart_episodes
from rayprune.rllib.environments.environment import lone_env_runner
from rayprune.rllib.environments.vector_environment import vector_faults
from rayprune.rllib.evaluation.evaluator import Evaluator
from rayprune.rllib.experiment.algorithm_config import base_config, build_config
from rayprune.rllib.experiment.network_checks import network_faults
from tests.rllib import experiments
from tests.rllib.training.test_resume import CrashAt, CrashError, check_same_run


class SameStep(CartPoleVectorEnv):
    def __init__(self, **keywords: Any) -> None:
        super().__init__(**keywords)
        self.metadata = {**self.metadata, "autoreset_mode": AutoresetMode.SAME_STEP}


class Wider(CartPoleVectorEnv):
    def __init__(self, **keywords: Any) -> None:
        super().__init__(**keywords)
        self.single_observation_space = gym.spaces.Box(-1, 1, (5,), np.float32)


for _vector in (SameStep, Wider):
    gym.register(
        f"{_vector.__name__}-v0",
        entry_point="gymnasium.envs.classic_control.cartpole:CartPoleEnv",
        vector_entry_point=_vector,
        max_episode_steps=20,
    )


def vectorised(
    env: str = "CartPole-v1", mode: str = "vector_entry_point", **changes: Any
) -> ExperimentConfig:
    runners = {**experiments.PPO["rllib"]["env_runners"], "gym_env_vectorize_mode": mode}
    rllib = {**experiments.PPO["rllib"], "env_runners": runners}
    return experiments.experiment(experiments.PPO, env=env, rllib=rllib, **changes)


def sampled(config: Any, seed: int = 0) -> list[Any]:
    env_runner = SingleAgentEnvRunner(config=config, worker_index=0)
    env_runner.sample(num_timesteps=50, random_actions=False)
    _restart_episodes(env_runner, seed, 400)
    episodes: list[Any] = env_runner.sample(num_timesteps=100)
    env_runner.stop()
    return episodes


def alike(ours: list[Any], theirs: list[Any]) -> bool:
    pairs = zip(ours, theirs, strict=True)
    return all(
        np.array_equal(a.get_observations(), b.get_observations())
        and np.array_equal(a.get_rewards(), b.get_rewards())
        for a, b in pairs
    )


@pytest.fixture(params=["CartPole-v1", "rayprune.envs.envpool:EnvPool/CartPole-v1"])
def env(request: pytest.FixtureRequest) -> str:
    """An environment that has a vector, by its name."""
    if "envpool" in request.param:
        pytest.importorskip("envpool")
    return str(request.param)


def test_an_env_runner_samples_from_the_vector_and_again_after_a_barrier(env: str) -> None:
    config = build_config(vectorised(env))
    assert network_faults(vectorised(env)) == []
    episodes = sampled(config)
    assert sum(len(episode) for episode in episodes) >= 100
    assert all(episode.get_return() == len(episode) for episode in episodes)
    assert {len(episode.get_observations()) - len(episode) for episode in episodes} == {1}
    assert alike(episodes, sampled(config))
    assert not alike(episodes[:2], sampled(config, seed=1)[:2])


@pytest.mark.slow  # three whole runs
@pytest.mark.usefixtures("ray_session")
def test_a_resumed_run_equals_the_uninterrupted_one(env: str, tmp_path: Path) -> None:
    what = vectorised(env, stop={"env_steps": 500}, evaluation={"every": 200, "episodes": 1})
    experiments.train(what, tmp_path / "whole")
    with pytest.raises(CrashError):
        experiments.train(what, tmp_path / "cut", reporter=CrashAt(310))
    experiments.train(what, tmp_path / "cut", resume=True)
    check_same_run(tmp_path / "whole", tmp_path / "cut")


def test_an_evaluation_plays_plain_environments_with_the_same_seeds() -> None:
    returns = {}
    for mode in ("vector_entry_point", "sync"):
        evaluator = Evaluator(base_config(vectorised(mode=mode)))
        np.random.seed(0)  # noqa: NPY002 - what RLlib draws from
        evaluator.module.set_state({k: v * 0 for k, v in evaluator.module.get_state().items()})
        returns[mode] = evaluator.returns(10_000, 3)
        evaluator.close()
    assert returns["vector_entry_point"] == returns["sync"]
    env_runner = lone_env_runner(base_config(vectorised()))
    assert isinstance(env_runner.env.unwrapped, SyncVectorEnv)


def test_an_environment_without_a_vector_is_refused_with_the_way_out() -> None:
    [fault] = network_faults(vectorised("Acrobot-v1"))
    assert "`env` 'Acrobot-v1' is registered without one" in fault
    assert "rayprune.envs.envpool" in fault
    assert "`rllib.env_runners.gym_env_vectorize_mode`" in fault


def test_a_vector_that_resets_when_rllib_does_not_expect_it_is_refused() -> None:
    [fault] = network_faults(vectorised("SameStep-v0"))
    assert "AutoresetMode.SAME_STEP" in fault
    assert "NEXT_STEP" in fault


def test_a_vector_of_other_spaces_than_its_environment_is_refused() -> None:
    [fault] = network_faults(vectorised("Wider-v0"))
    assert "observation_space is Box(-1.0, 1.0, (5,), float32)" in fault


def test_environments_that_are_stepped_one_by_one_need_no_vector() -> None:
    assert vector_faults(base_config(vectorised("SameStep-v0", mode="sync"))) == []
