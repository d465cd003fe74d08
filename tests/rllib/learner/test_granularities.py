"""Every granularity in live training: exact zeros everywhere, and whole units gone."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.apis import TargetNetworkAPI
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from rayprune.errors import ConfigError
from rayprune.rllib import prune
from rayprune.rllib.actors.learners import policy_of
from rayprune.rllib.callback import learner_reports
from rayprune.rllib.connectors.observations import encode_observations
from rayprune.rllib.evaluation.evaluator import Evaluator
from rayprune.rllib.experiment.algorithm_config import base_config, build_module
from rayprune.rllib.experiment.network_checks import check_network, network_faults
from rayprune.rllib.models import PrunableResidualCNN
from rayprune.rllib.modules.sensors import sensor_report
from rayprune.rllib.training.layer_returns import post_layer_returns
from rayprune.rllib.training.twins import dense_twin
from tests.doubles.envs import Images
from tests.rllib import configs
from tests.rllib.experiments import PPO, experiment, train
from tests.rllib.invariants import check_by_hand

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(300)]

CNN = {"conv_filters": [[4, 4, 2], [8, 4, 2]], "head_fcnet_hiddens": [16], "fcnet_hiddens": []}
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


SLOW = {"cnn block", "lstm input", "sac input", "ppo hybrid"}


@pytest.mark.parametrize(
    "case", [pytest.param(x, marks=pytest.mark.slow) if x in SLOW else x for x in CASES]
)
def test_every_granularity_trains_with_exact_zeros(case: str) -> None:
    make, fields = CASES[case]
    algo = configs.build(prune(make(), configs.pruning(**fields)))
    try:
        for _ in range(3):
            algo.train()  # the callback raises on a broken promise
            check_by_hand(algo)
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
    return configs.ppo(Vehicle).env_runners(env_to_module_connector=encode_observations)


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
    with pytest.raises(ConfigError, match=r"'pi_encoder\.net\.mlp\.0' has 3 inputs"):
        check_network(build_module(configs.sac()), configs.pruning(**TWO_OF_FOUR))


@pytest.mark.slow
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


def residual_cnn() -> Any:
    model = {
        "policy_channels": [8],
        "value_channels": [8],
        "policy_hiddens": [16, 16],
        "value_hiddens": [16],
    }
    spec = RLModuleSpec(module_class=PrunableResidualCNN, model_config=model)
    return (
        PPOConfig()
        .environment(Images)
        .env_runners(num_env_runners=0)
        .training(train_batch_size_per_learner=64, minibatch_size=32, num_epochs=1)
        .rl_module(rl_module_spec=spec)
        .debugging(seed=0, log_level="ERROR")
    )


@pytest.mark.parametrize(
    "kind",
    ["mlp", "residual cnn", *(pytest.param(x, marks=pytest.mark.slow) for x in ("dqn", "sac"))],
)
def test_whole_layers_go_and_are_the_identity_on_the_env_runner_after_a_restore_too(
    kind: str, tmp_path: Path
) -> None:
    make = {
        "mlp": configs.ppo,
        "residual cnn": residual_cnn,
        "dqn": configs.dqn,
        "sac": configs.sac,
    }[kind]
    config = prune(make(), configs.pruning(granularity="layer", sparsity=0.9))
    algo = configs.build(config)
    try:
        for _ in range(3):
            algo.train()  # the callback raises on a broken promise
        held = _removed(algo)
        assert held
        algo.save_to_path(tmp_path)
    finally:
        algo.stop()
    other = configs.build(config)
    try:
        other.restore_from_path(str(tmp_path))
        other.train()
        assert _removed(other) == held
    finally:
        other.stop()


def _removed(algo: Any) -> set[str]:
    """Return the layers that are exactly the identity on Learner, EnvRunner and target networks."""
    learner = configs.learner_of(algo)
    module = learner.module[DEFAULT_MODULE_ID].unwrapped()
    report = learner_reports(algo)[0][DEFAULT_MODULE_ID]
    gone = {layer.name for layer in report["layers"] if layer.sparsity > 0}
    on_runner = dict(algo.env_runner.module.named_parameters())
    for name in gone:
        layer = module.get_submodule(name)
        if isinstance(layer, torch.nn.Linear):
            assert torch.equal(layer.weight, torch.eye(layer.in_features)), name
            assert not layer.bias.any()
            if f"{name}.weight" in on_runner and "critic" not in name:
                assert torch.equal(on_runner[f"{name}.weight"], torch.eye(layer.in_features))
                assert not on_runner[f"{name}.bias"].any()
        else:
            assert not layer.weight.any()
    names = {id(p): name for name, p in module.named_parameters()}
    pairs = module.get_target_network_pairs() if isinstance(module, TargetNetworkAPI) else []
    for source, target in pairs:
        for p, t in zip(source.parameters(), target.parameters(), strict=True):
            if names[id(p)].rpartition(".")[0] in gone:
                assert torch.equal(p, t), names[id(p)]
    return gone


def test_layers_are_scored_by_the_return_lost_and_the_update_waits_for_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fields = {"granularity": "layer", "criterion": "return", "sparsity": 0.5}
    config = prune(configs.ppo(fcnet_hiddens=[16, 16, 16]), configs.pruning(**fields))
    algo, evaluator = configs.build(config), Evaluator(configs.ppo(fcnet_hiddens=[16, 16, 16]))
    try:
        algo.train()
        assert "waits for the return lost without each layer" in caplog.text
        assert _removed(algo) == set()
        lost = post_layer_returns(algo, evaluator, first_seed=5, episodes=4)
        assert len(lost) == 2
        assert all("actor_encoder" in name for name in lost)
        algo.train()
        (gone,) = _removed(algo)
        assert lost[gone] == min(lost.values())
        assert post_layer_returns(algo, evaluator, first_seed=5, episodes=4) == {}
    finally:
        evaluator.close()
        algo.stop()


def test_a_run_removes_layers_by_return_and_its_record_tells_the_returns(tmp_path: Path) -> None:
    pruning = {
        "granularity": "layer",
        "criterion": "return",
        "sparsity": 0.5,
        "schedule": {"kind": "one_shot", "begin": 400, "every": 200},
    }
    rllib = copy.deepcopy(PPO["rllib"])
    rllib["rl_module"] = {"model_config": {"fcnet_hiddens": [16, 16, 16]}}
    summary = train(experiment(PPO, pruning=pruning, rllib=rllib), tmp_path / "run")
    rows = [json.loads(x) for x in (tmp_path / "run" / "results.jsonl").read_text().splitlines()]
    told = [row["layer_returns"] for row in rows if "layer_returns" in row]
    assert len(told) == 1
    assert len(told[0]) == 2
    gone = [layer["name"] for layer in summary["sparsity"]["layers"] if layer["sparsity"] > 0]
    assert len(gone) == 1
    assert told[0][gone[0]] == min(told[0].values())
    assert summary["target_reached"]


def test_a_run_names_its_unplugged_sensors_in_the_summary(tmp_path: Path) -> None:
    pruning = {"granularity": "input", "sparsity": 0.5, "schedule": PPO["pruning"]["schedule"]}
    summary = train(experiment(PPO, pruning=pruning), tmp_path / "run")
    assert len(summary["sensors"]["unplugged"]) == 2
    assert sorted(summary["sensors"]["unplugged"] + summary["sensors"]["kept"]) == [
        f"obs[{i}]" for i in range(4)
    ]


def test_a_yaml_file_may_name_an_environment_with_a_dict_observation() -> None:
    gym.register("RaypruneVehicle-v0", entry_point=Vehicle)
    try:
        pruning = {"granularity": "input", "sparsity": 0.5, "schedule": PPO["pruning"]["schedule"]}
        what = experiment(PPO, env="RaypruneVehicle-v0", pruning=pruning)
        assert network_faults(what) == []
        config = base_config(what)
        assert build_module(config).observation_space.shape == (len(NAMES),)
    finally:
        gym.registry.pop("RaypruneVehicle-v0")


@pytest.mark.parametrize("fields", [TWO_OF_FOUR, HYBRID, {"granularity": "layer"}])
def test_a_dense_twin_prunes_nothing_whatever_the_granularity(fields: dict[str, Any]) -> None:
    given = {key: value for key, value in fields.items() if value is not None}
    implied = "hybrid" in given or given["granularity"] == "2:4"
    twin = dense_twin(experiment(PPO, pruning=given if implied else {**given, "sparsity": 0.5}))
    assert (twin.pruning.target, twin.pruning.granularity) == (0.0, "weight")
