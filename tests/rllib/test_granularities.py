"""Every granularity in live training: exact zeros everywhere, and whole units gone."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID

from rayprune.errors import ConfigError
from rayprune.rllib import prune
from rayprune.rllib.callback import learner_reports
from rayprune.rllib.evaluation import Evaluator
from rayprune.rllib.experiment import check_network
from rayprune.rllib.rows import policy_of
from rayprune.rllib.sensors import flatten_rich_observations, sensor_report
from tests.rllib import configs
from tests.rllib.envs import Images
from tests.rllib.test_exact_zeros import CNN, _check_by_hand

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(300)]

HYBRID = {"granularity": "hybrid", "hybrid": {"neuron": 0.5, "weight": 0.7}, "sparsity": None}
TWO_OF_FOUR = {"granularity": "2:4", "sparsity": None}
LSTM = {"use_lstm": True, "lstm_cell_size": 16, "max_seq_len": 8}

CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "ppo 2:4": (lambda: configs.ppo(), TWO_OF_FOUR),
    "ppo block": (lambda: configs.ppo(), {"granularity": "block"}),
    "ppo hybrid": (lambda: configs.ppo(), HYBRID),
    "ppo input": (lambda: configs.ppo(), {"granularity": "input", "sparsity": 0.5}),
    "cnn 2:4": (lambda: configs.ppo(Images, **CNN), {**TWO_OF_FOUR, "protect": ["*.cnn.1"]}),
    "cnn block": (lambda: configs.ppo(Images, **CNN), {"granularity": "block"}),
    "lstm 2:4": (lambda: configs.ppo(**LSTM), TWO_OF_FOUR),
    "lstm input": (lambda: configs.ppo(**LSTM), {"granularity": "input", "sparsity": 0.5}),
    "dqn 2:4": (lambda: configs.dqn(dueling=True, double_q=True), TWO_OF_FOUR),
    "sac 2:4": (
        lambda: configs.sac(),
        {**TWO_OF_FOUR, "protect": ["pi_encoder.net.mlp.0", "*.base_encoders.*"]},
    ),
    "sac input": (lambda: configs.sac(), {"granularity": "input", "sparsity": 0.5}),
}


@pytest.mark.parametrize("case", CASES)
def test_every_granularity_trains_with_exact_zeros(case: str) -> None:
    make, fields = CASES[case]
    algo = configs.build(prune(make(), configs.pruning(**fields)))
    try:
        for _ in range(3):
            algo.train()  # the callback raises on a broken promise
            _check_by_hand(algo)
        report = learner_reports(algo)[0][DEFAULT_MODULE_ID]
        assert report["finished"]
        if fields["granularity"] == "2:4":
            sparsities = {layer.sparsity for layer in report["layers"] if not layer.protected}
            assert sparsities == {0.5}
    finally:
        algo.stop()


def test_two_of_four_after_training_is_two_of_every_four_on_the_env_runner() -> None:
    algo = configs.build(prune(configs.ppo(), configs.pruning(**TWO_OF_FOUR)))
    try:
        for _ in range(2):
            algo.train()
        weight = dict(algo.env_runner.module.named_parameters())["pi.net.mlp.0.weight"]
        assert torch.equal((weight.view(2, -1, 4) != 0).sum(-1), torch.full((2, 8), 2))
    finally:
        algo.stop()


class Vehicle(gym.Env[dict[str, Any], int]):
    """Only the second beam of the lidar says which action is rewarded."""

    observation_space = gym.spaces.Dict(
        {
            "state": gym.spaces.Box(-1, 1, (2,), np.float32),
            "lidar": gym.spaces.Box(-1, 1, (3,), np.float32),
            "camera": gym.spaces.Box(0, 1, (2, 2), np.float32),
            "gear": gym.spaces.Discrete(2),
        }
    )
    action_space = gym.spaces.Discrete(2)

    def __init__(self, config: dict[str, Any] | None = None) -> None:
        self._steps = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self._steps = 0
        return self._see(), {}

    def step(self, action: int) -> Any:
        reward = float(action == int(self._beam > 0))
        self._steps += 1
        return self._see(), reward, self._steps == 8, False, {}

    def _see(self) -> dict[str, Any]:
        lidar = self.np_random.uniform(-1, 1, 3).astype(np.float32)
        self._beam = lidar[1]
        return {
            "state": self.np_random.uniform(-1, 1, 2).astype(np.float32),
            "lidar": lidar,
            "camera": self.np_random.random((2, 2), dtype=np.float32),
            "gear": int(self.np_random.integers(2)),
        }


NAMES = [
    *("camera[0,0]", "camera[0,1]", "camera[1,0]", "camera[1,1]"),
    *("gear=0", "gear=1"),
    *("lidar[0]", "lidar[1]", "lidar[2]"),
    *("state[0]", "state[1]"),
]


def vehicle() -> Any:
    return configs.ppo(Vehicle).env_runners(env_to_module_connector=flatten_rich_observations)


def test_the_sensors_of_a_dict_observation_are_named_in_the_order_in_which_rllib_flattens() -> None:
    evaluator = Evaluator(vehicle())
    try:
        env = Vehicle()
        observation, _ = env.reset(seed=7)
        flat = evaluator.first_batch(7)["obs"][0].tolist()
        by_hand = dict(zip(NAMES, flat, strict=True))
        assert by_hand["lidar[1]"] == pytest.approx(float(observation["lidar"][1]))
        assert by_hand["camera[1,0]"] == pytest.approx(float(observation["camera"][1, 0]))
        assert by_hand["state[0]"] == pytest.approx(float(observation["state"][0]))
        assert by_hand[f"gear={observation['gear']}"] == 1.0
        assert sensor_report(evaluator) == {"kept": NAMES, "unplugged": []}
    finally:
        evaluator.close()


def test_sensors_that_went_are_named_and_change_no_action() -> None:
    config = vehicle()
    algo = configs.build(
        prune(config, configs.pruning(granularity="input", sparsity=8 / 11, pooling="l2"))
    )
    try:
        algo.train()
        evaluator = Evaluator(config)
        evaluator.load(policy_of(algo))
        report = sensor_report(evaluator)
        assert report is not None
        assert len(report["unplugged"]) == 8
        assert [n for n in NAMES if n in report["kept"]] == report["kept"]
        batch = evaluator.first_batch(3)
        dead = torch.tensor([name in report["unplugged"] for name in NAMES])
        other = {**batch, "obs": torch.where(dead, torch.randn(11), batch["obs"])}
        acts = [evaluator.module.forward_inference(b)["action_dist_inputs"] for b in (batch, other)]
        assert torch.equal(*acts)
        evaluator.close()
    finally:
        algo.stop()


def test_inputs_that_four_does_not_divide_are_refused_before_anything_runs() -> None:
    from rayprune.rllib.experiment import build_module

    with pytest.raises(ConfigError, match=r"'pi_encoder\.net\.mlp\.0' has 3 inputs"):
        check_network(build_module(configs.sac()), configs.pruning(**TWO_OF_FOUR))


def test_two_learners_cut_the_same_groups_by_chance() -> None:
    config = configs.ppo().learners(num_learners=2)
    algo = configs.build(prune(config, configs.pruning(**TWO_OF_FOUR, criterion="random")))
    try:
        algo.train()
        first, second = learner_reports(algo)
        assert first[DEFAULT_MODULE_ID]["digest"] == second[DEFAULT_MODULE_ID]["digest"]
        assert first[DEFAULT_MODULE_ID]["sparsity"] == 0.5
    finally:
        algo.stop()
