"""Observations and rewards normalised by running statistics, wherever the policy goes."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import ray
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.tune.registry import register_env

from rayprune import PruningConfig
from rayprune.deploy.export.export import ExportRequest
from rayprune.deploy.formats import open_artifact
from rayprune.errors import CheckpointError, ConfigError
from rayprune.rllib import normalise, prune
from rayprune.rllib.checkpoints.files import read_experiment
from rayprune.rllib.commands.evaluate import evaluate_checkpoint
from rayprune.rllib.commands.export import export_checkpoint
from rayprune.rllib.connectors.filter_state import (
    filter_state,
    freeze,
    statistics_of,
    take_statistics,
)
from rayprune.rllib.connectors.filters import ObservationFilter, RewardFilter
from rayprune.rllib.connectors.sampling import scaled
from rayprune.rllib.evaluation.evaluator import Evaluator
from rayprune.rllib.experiment.algorithm_config import base_config
from rayprune.rllib.training.failures import build
from rayprune.rllib.training.warm_start import start_from
from rayprune.tracking.reporter import telling
from tests.rllib import experiments
from tests.rllib.training.test_resume import CrashAt, CrashError, check_same_run

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(600)]

SPARSE = PruningConfig(sparsity=0.5, horizon=1000)


class Sign(gym.Env[Any, Any]):
    """One step: is the reading above 50? 100 for the right answer."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float64)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, _: Any = None) -> None:
        self.seen: list[float] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.reading = 50 + 3 * self.np_random.standard_normal()
        self.seen.append(self.reading)
        return np.array([self.reading]), {}

    def step(self, action: Any) -> Any:
        right = int(action) == int(self.reading > 50)
        self.seen.append(self.reading)
        return np.array([self.reading]), 100.0 * right, True, False, {}


@pytest.fixture(scope="module", autouse=True)
def _environments() -> None:
    register_env("rayprune-sign", Sign)


@pytest.fixture(scope="module")
def signs() -> Iterator[str]:
    """Give the same as an id of gymnasium's, as a YAML has it."""
    gym.register("RaypruneSign-v0", entry_point=lambda: Sign())
    yield "RaypruneSign-v0"
    del gym.registry["RaypruneSign-v0"]


def filtered(base: Mapping[str, Any], **runners: Any) -> dict[str, Any]:
    """Return an experiment that normalises observations and rewards."""
    result = copy.deepcopy(dict(base))
    result["rllib"]["env_runners"].update(observation_filter="MeanStdFilter", **runners)
    result["normalise"] = {"rewards": True}
    return result


def sign(signs: str, **changes: Any) -> dict[str, Any]:
    rllib = {
        "training": {
            "train_batch_size_per_learner": 250,
            "minibatch_size": 125,
            "num_epochs": 6,
            "lr": 0.01,
        },
        "env_runners": {"num_env_runners": 0, "num_envs_per_env_runner": 4},
        "rl_module": {"model_config": {"fcnet_hiddens": [16]}},
    }
    base = {**experiments.PPO, "env": signs, "rllib": rllib, "stop": {"env_steps": 2000}}
    return {**base, "evaluation": {"every": None, "episodes": 60}, **changes}


@pytest.fixture(scope="module")
def trained(signs: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the directory of a run that has learnt its task."""
    out = tmp_path_factory.mktemp("sign") / "run"
    experiments.train(experiments.experiment(filtered(sign(signs))), out)
    return out


def test_a_policy_whose_readings_are_normalised_is_as_good_in_test(trained: Path) -> None:
    again = evaluate_checkpoint(trained, episodes=200, seed=90_000, address=None)
    # Raw returns, though training scaled the rewards.
    assert again["returns"]["seeds"]["mean"] >= 97.0


def test_an_export_takes_raw_observations(trained: Path, tmp_path: Path) -> None:
    certificate = export_checkpoint(trained, ExportRequest(tmp_path / "sign.onnx", "onnx"))
    assert certificate["about"]["as_rllib"]["differing_actions"] == 0
    policy = open_artifact(tmp_path / "sign.onnx")
    readings = np.float32([[44.0], [49.0], [51.0], [56.0]])
    action = policy.run([readings])[0]
    assert action.reshape(-1).tolist() == [0, 0, 1, 1]


def test_evaluation_applies_the_statistics_and_adds_nothing_to_them(trained: Path) -> None:
    checkpoint = next((trained / "checkpoints").glob("[0-9]*"))
    evaluator = Evaluator(base_config(read_experiment(checkpoint)))
    try:
        evaluator.load_checkpoint(checkpoint)
        (held,) = (c for c in evaluator.connectors[0] if isinstance(c, ObservationFilter))
        before = held.shares.total
        (played, *_) = evaluator.play(3, 5, explore=False)
        evaluator.evaluate(0, 3)
        assert held.shares.total is before
        assert before.count > 2000
        assert 49 < float(before.mean[0]) < 51
        # What is recorded of an episode is what the environment gave.
        assert 35 < float(played.get_observations(0)[0]) < 65
    finally:
        evaluator.close()


@pytest.mark.parametrize(
    ("base", "crash_at"),
    [
        (filtered({**experiments.PPO, "stop": {"env_steps": 800}}), 410),
        pytest.param(
            filtered({**experiments.DQN, "stop": {"env_steps": 400}}), 310, marks=pytest.mark.slow
        ),
    ],
    ids=["ppo", "dqn"],
)
def test_a_resumed_run_that_normalises_equals_the_uninterrupted_one(
    tmp_path: Path, base: Mapping[str, Any], crash_at: int
) -> None:
    what = experiments.experiment(base)
    experiments.train(what, tmp_path / "whole")
    with pytest.raises(CrashError):
        experiments.train(what, tmp_path / "cut", reporter=CrashAt(crash_at))
    experiments.train(what, tmp_path / "cut", resume=True)
    check_same_run(tmp_path / "whole", tmp_path / "cut")


def small(config: Any) -> Any:
    return (
        config.environment("rayprune-sign")
        .training(train_batch_size_per_learner=40, minibatch_size=20, num_epochs=1)
        .rl_module(model_config={"fcnet_hiddens": [8]})
        .reporting(min_time_s_per_iteration=0)
    )


def test_readings_of_all_env_runners_count_once_and_a_restarted_one_goes_on(
    tmp_path: Path,
) -> None:
    config = small(PPOConfig()).env_runners(
        num_env_runners=2, observation_filter="MeanStdFilter", rollout_fragment_length=10
    )
    algo = prune(config, SPARSE).build_algo()
    try:
        for _ in range(2):
            algo.train()
        seen = _seen(algo)
        held = _statistics(algo)
        saved = algo.save_to_path(str(tmp_path / "checkpoint"))
        assert held.count == len(seen)
        np.testing.assert_allclose(float(held.mean[0]), np.mean(seen), rtol=1e-6)
        np.testing.assert_allclose(float(held.variance[0]), np.var(seen), rtol=1e-5)
        actor = algo.env_runner_group._worker_manager.actors()[1]
        killed = _process_of(actor)
        ray.kill(actor, no_restart=False)
        deadline = time.monotonic() + 200
        algo.train()
        # The kill may come after an iteration or two, and its new process later still.
        while (
            _process_of(actor) in (None, killed)
            or algo.env_runner_group.num_healthy_remote_workers() < 2
        ):
            assert time.monotonic() < deadline
            time.sleep(0.5)
            algo.train()
        counts = algo.env_runner_group.foreach_env_runner(
            lambda runner: runner._env_to_module.connectors[0].connectors[0].shares.total.count,
            local_env_runner=False,
        )
        assert min(counts) > len(seen)
        # What was gathered since a checkpoint is not of the policy that is restored.
        algo.restore_from_path(saved)
        back = _statistics(algo)
        assert (back.count, float(back.mean[0])) == (held.count, float(held.mean[0]))
        algo.train()
        assert _statistics(algo).count == held.count + 2 * 40  # one-step episodes
    finally:
        algo.stop()


def _process_of(actor: Any) -> int | None:
    try:
        return int(ray.get(actor.apply.remote(lambda _: os.getpid()), timeout=60))
    except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError):
        return None


def _statistics(algo: Any) -> Any:
    (held,) = (c for c in statistics_of(algo) if isinstance(c, ObservationFilter))
    return held.shares.total


def _seen(algo: Any) -> list[float]:
    """Return the readings that the environments gave, as float32."""
    found = algo.env_runner_group.foreach_env_runner(
        lambda runner: [
            float(np.float32(x)) for e in runner.env.unwrapped.envs for x in e.unwrapped.seen
        ],
        local_env_runner=False,
    )
    return [reading for runner in found for reading in runner]


def test_a_replayed_transition_is_normalised_by_the_newest_statistics() -> None:
    config = (
        DQNConfig()
        .environment("rayprune-sign")
        .training(num_steps_sampled_before_learning_starts=20, train_batch_size=8)
        .rl_module(model_config={"fcnet_hiddens": [8]})
        .env_runners(num_env_runners=0)
        .reporting(min_sample_timesteps_per_iteration=60, min_time_s_per_iteration=0)
    )
    algo = prune(normalise(config, rewards=True), SPARSE).build_algo()
    try:
        algo.train()
        buffer = algo.local_replay_buffer
        raw = [float(e.get_observations(0)[0]) for e in buffer.episodes]
        assert 35 < min(raw) < max(raw) < 65
        (held, reward) = statistics_of(algo)
        sampled = buffer.sample(num_items=16, n_step=1, batch_length_T=0, gamma=0.99)
        for episode in sampled:
            reading = float(episode.get_observations(0)[0])
            back = reading * float(held.scaling.std[0]) + float(held.scaling.mean[0])
            assert min(abs(back - x) for x in raw) < 1e-3
            assert episode.get_rewards(0) in (0.0, pytest.approx(100.0 / reward.std, rel=1e-5))
        assert {float(r) for e in buffer.episodes for r in e.get_rewards()} <= {0.0, 100.0}
    finally:
        algo.stop()


def test_on_policy_learners_get_scaled_rewards_and_results_stay_raw(tmp_path: Path) -> None:
    config = small(PPOConfig()).env_runners(num_env_runners=0)
    algo = prune(normalise(config, observations=False, rewards=True), SPARSE).build_algo()
    try:
        result = algo.train()
        assert 0 < result["env_runners"]["episode_return_mean"] <= 100
        (rewards,) = statistics_of(algo)
        assert isinstance(rewards, RewardFilter)
        given = {float(r) for e in algo.env_runner.sample() for r in e.get_rewards()}
        np.testing.assert_allclose(sorted(given), [0.0, 100.0 / rewards.std], rtol=1e-5)
        saved, before = algo.save_to_path(str(tmp_path / "checkpoint")), rewards.shares.total
        algo.train()
        assert rewards.shares.total.count > before.count
        algo.restore_from_path(saved)
        assert rewards.shares.total.count == before.count
    finally:
        algo.stop()


def test_a_scaled_episode_leaves_the_one_it_is_of() -> None:
    from ray.rllib.env.single_agent_episode import SingleAgentEpisode

    episode = SingleAgentEpisode(
        observations=[0, 1], actions=[0], rewards=[4.0], len_lookback_buffer=0
    )
    assert scaled(episode, 2.0).get_rewards(0) == 2.0
    assert episode.get_rewards(0) == 4.0


def test_a_run_starts_with_the_statistics_of_the_policy_that_it_starts_from(
    trained: Path, signs: str
) -> None:
    checkpoint = next((trained / "checkpoints").glob("[0-9]*"))
    held = filter_state(checkpoint)
    assert held is not None
    algo = build(base_config(experiments.experiment(filtered(sign(signs)))))
    try:
        with pytest.raises(AttributeError):  # no pruning Learner, which is beside the point here
            start_from(algo, trained)
        assert _statistics(algo).count == held["base"][0]
        freeze(algo)
        algo.train()
        assert _statistics(algo).count == held["base"][0]
    finally:
        algo.stop()


def test_a_policy_of_normalised_readings_is_not_started_from_without(
    trained: Path, signs: str
) -> None:
    algo = build(base_config(experiments.experiment(sign(signs))))
    try:
        with pytest.raises(CheckpointError, match="trained with normalised observations") as caught:
            start_from(algo, trained)
        assert "observation_filter: MeanStdFilter" in str(caught.value)
        told: list[str] = []
        with telling(told.append):
            # By `transfer`, from another task: the rest of its network may be worth having.
            take_statistics(algo, next((trained / "checkpoints").glob("[0-9]*")), partly=True)
        assert told == [str(caught.value)]
    finally:
        algo.stop()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"observation_filter": "ConcurrentMeanStdFilter"}, "must be 'MeanStdFilter' or"),
        (
            {"observation_filter": "MeanStdFilter", "broadcast_env_runner_states": False},
            "statistics of its own",
        ),
    ],
)
def test_what_cant_be_normalised_says_why(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        prune(small(PPOConfig()).env_runners(**change), SPARSE)


def test_choices_alone_leave_nothing_to_normalise() -> None:
    config = small(PPOConfig()).environment("FrozenLake-v1").env_runners(num_env_runners=0)
    raw = {**filtered(experiments.PPO), "env": "FrozenLake-v1"}
    with pytest.raises(ConfigError, match="no reading to normalise: the observations are choices"):
        Evaluator(base_config(experiments.experiment(raw)))
    with pytest.raises(ConfigError, match="no reading to normalise: the observations are Discrete"):
        prune(normalise(config), SPARSE).build_algo()
