"""An exported policy does what RLlib's own does, connector by connector."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
import tree
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.connectors.env_to_module import FlattenObservations, MeanStdFilter
from ray.rllib.core.distribution.torch.torch_distribution import TorchSquashedGaussian
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from rayprune.deploy.export.export import ExportRequest, export_policy
from rayprune.deploy.formats import open_artifact
from rayprune.deploy.policy.capture import plain_copy
from rayprune.deploy.policy.runs import module_run, random_inputs
from rayprune.errors import InputError, InvariantError
from rayprune.rllib.commands import export as exporter
from rayprune.rllib.commands.export import export_checkpoint
from rayprune.rllib.evaluation.evaluator import Evaluator
from rayprune.rllib.export.policy import deployable, observation_ports
from rayprune.rllib.models import PrunableLSTM, PrunableMLP, PrunableNatureCNN, PrunableTransformer
from tests.doubles.envs import OwnModule
from tests.doubles.exported import returns_of, scramble, states_of, write_checkpoint
from tests.rllib import configs, experiments

BOX = gym.spaces.Box
FLAT = BOX(-1, 1, (5,), np.float32)
BYTES = BOX(0, 255, (42, 42, 3), np.uint8)
DICT = gym.spaces.Dict(
    b=BOX(-1, 1, (2, 2), np.float64), a=gym.spaces.Discrete(3), c=gym.spaces.MultiDiscrete([2, 4])
)
CNN = {"policy_channels": [4, 5], "value_channels": [4, 5], "kernels": [[8, 4], [4, 2]]}
LSTM = {"use_lstm": True, "lstm_cell_size": 8, "max_seq_len": 10}


def spaces(
    observation: gym.Space,
    action: gym.Space,
    connector: Any = None,
    module: Any = None,
    **model: Any,
) -> PPOConfig:
    """PPO over random observations of any space."""
    config = configs.ppo("rayprune-random", **model)
    config.environment(env_config={"observation_space": observation, "action_space": action})
    if module is not None:
        config = PPOConfig().environment("rayprune-random", env_config=config.env_config)
        config.rl_module(rl_module_spec=RLModuleSpec(module_class=module, model_config=model))
    if connector is not None:
        config.env_runners(env_to_module_connector=lambda env, spaces, device: connector())
    return config


CONFIGS = {
    "mlp": configs.ppo,
    "lstm": lambda: configs.ppo(**LSTM),
    "lstm of ours": lambda: spaces(FLAT, gym.spaces.Discrete(3), module=PrunableLSTM),
    "dqn": configs.dqn,
    "sac": configs.sac,
    "own module": lambda: spaces(FLAT, gym.spaces.Discrete(3), module=OwnModule),
    "multi discrete": lambda: spaces(FLAT, gym.spaces.MultiDiscrete([2, 3])),
    "one of multi discrete": lambda: spaces(FLAT, gym.spaces.MultiDiscrete([3])),
    "bounded": lambda: spaces(FLAT, BOX(np.array([-2, 0]), np.array([1, 9]), dtype=np.float32)),
    "unbounded": lambda: spaces(FLAT, BOX(-np.inf, np.inf, (2,), np.float32)),
    "clipped": lambda: spaces(FLAT, BOX(-0.1, 0.1, (2,), np.float32)).environment(
        normalize_actions=False, clip_actions=True
    ),
    "filtered": lambda: spaces(
        BOX(-5, 900, (3,), np.float32), gym.spaces.Discrete(3), MeanStdFilter
    ),
    "nested": lambda: spaces(DICT, gym.spaces.Discrete(3), FlattenObservations),
    "number": lambda: spaces(gym.spaces.Discrete(6), gym.spaces.Discrete(3), FlattenObservations),
    "cnn": lambda: spaces(BYTES, gym.spaces.Discrete(3), module=PrunableNatureCNN, **CNN),
    "padded cnn": lambda: spaces(
        BOX(0, 1, (42, 42, 1), np.float32),
        gym.spaces.Discrete(3),
        conv_filters=[[4, 4, 2], [8, 4, 2]],
        fcnet_hiddens=[],
        head_fcnet_hiddens=[16],
    ),
}

FILES = {
    **CONFIGS,
    "cnn and lstm": lambda: spaces(
        BOX(0, 1, (42, 42, 3), np.float32),
        gym.spaces.Discrete(3),
        conv_filters=[[4, 8, 4], [8, 4, 2]],
        **LSTM,
    ),
    "free log-stds": lambda: spaces(FLAT, BOX(-2, 3, (2,), np.float32), free_log_std=True),
    "free log-stds of ours": lambda: spaces(
        FLAT, BOX(-2, 3, (2,), np.float32), module=PrunableMLP, free_log_std=True
    ),
    "wide bounds": lambda: spaces(FLAT, BOX(-500, 500, (2,), np.float32)),
}


RARE = {
    "transformer": lambda: spaces(
        FLAT, gym.spaces.Discrete(3), module=PrunableTransformer, memory=4, policy_blocks=[16, 16]
    )
}
"""Whose operators the formats' own tests have."""


@pytest.mark.parametrize("format", ["onnx", "c"])
@pytest.mark.parametrize(
    "name", [*FILES, *(pytest.param(name, marks=pytest.mark.slow) for name in RARE)]
)
def test_each_kind_of_policy_is_written_and_proven(name, format, tmp_path):  # noqa: A002
    evaluator = Evaluator({**FILES, **RARE}[name]())
    scramble(evaluator.module, density=0.3)
    policy = deployable(evaluator)
    path = tmp_path / f"policy.{format}"
    recorded = random_inputs(
        policy.interface, [port.zeros(2) + 1 for port in policy.interface.inputs], 64, seed=0
    )
    told = export_policy(policy, path, format, recorded=recorded, about={})
    evaluator.close()
    assert told["equivalence"]["random"]["holds"]
    assert told["equivalence"]["recorded"]["observations"] == 64


@pytest.mark.parametrize(
    "name", [*CONFIGS, *(pytest.param(name, marks=pytest.mark.slow) for name in RARE)]
)
def test_actions_equal_those_of_rllibs_connectors_and_module(name):
    evaluator = Evaluator({**CONFIGS, **RARE}[name]())
    scramble(evaluator.module, density=0.3)
    _feed_filters(evaluator)
    policy = deployable(evaluator)
    run = module_run(plain_copy(policy))
    steps: list[Any] = []
    evaluator.returns(100, 2, steps.append)
    evaluator.close()
    given = []
    for acted in steps:
        observed = tree.map_structure(lambda *leaves: np.stack(leaves), *acted.observations)
        leaves = policy.interface.leaves(observed)
        actions, dist_inputs = run([*leaves, *states_of(acted, policy.interface)])[:2]
        np.testing.assert_allclose(actions, np.stack(acted.for_env), atol=2e-6, rtol=2e-6)
        if acted.logits is not None:
            logits = acted.logits.reshape(dist_inputs.shape)
            np.testing.assert_allclose(dist_inputs, logits, atol=2e-6, rtol=2e-6)
        given.append(dist_inputs)
    assert np.concatenate(given).std(axis=0).min() > 1e-3, "it heeds what it observes"


def _feed_filters(evaluator: Evaluator) -> None:
    for connector in evaluator.connectors[0]:
        if isinstance(connector, MeanStdFilter):
            connector._init_new_filters()
            draw = np.random.default_rng(0)
            for row in draw.uniform([300, -1, 0], [900, 1, 0.01], size=(99, 3)):
                connector._filters[None](row.astype(np.float32), update=True)


def test_only_the_policys_own_memory_is_an_input():
    evaluator = Evaluator(configs.ppo(**LSTM))
    ports = deployable(evaluator).interface.states
    evaluator.close()
    assert sorted(port.name for port in ports) == ["state.actor.c", "state.actor.h"]


def test_sampled_actions_are_rllibs_with_the_same_noise():
    evaluator = Evaluator(configs.sac())
    scramble(evaluator.module, density=0.5)
    policy = deployable(evaluator, sample=True)
    draw = np.random.default_rng(0)
    x, noise = (draw.normal(size=(20, n)).astype(np.float32) for n in (3, 1))
    action, dist_inputs = module_run(plain_copy(policy))([x, noise])
    evaluator.close()
    normal = TorchSquashedGaussian.from_logits(torch.from_numpy(dist_inputs))
    expected = 2.0 * normal._squash(
        normal._dist.mean + normal._dist.stddev * torch.from_numpy(noise)
    )
    np.testing.assert_allclose(action, expected, atol=1e-6)


class Strange(ConnectorV2):
    def __call__(self, *, batch: Any, **_: Any) -> Any:
        return batch


def test_what_cannot_be_exported_is_refused_by_name():
    evaluator = Evaluator(spaces(FLAT, gym.spaces.Discrete(2), Strange))
    with pytest.raises(InputError, match="Connectors that can't be exported: Strange"):
        deployable(evaluator)
    evaluator.close()
    evaluator = Evaluator(configs.dqn())
    with pytest.raises(InputError, match="a Q-network has none"):
        deployable(evaluator, sample=True)
    evaluator.close()
    evaluator = Evaluator(spaces(FLAT, gym.spaces.Tuple([gym.spaces.Discrete(2)] * 2)))
    with pytest.raises(InputError, match="can't be exported"):
        deployable(evaluator)
    evaluator.close()
    with pytest.raises(InputError, match=r"Text.*`obs\.words`"):
        observation_ports(gym.spaces.Dict(words=gym.spaces.Text(3)))


PLAIN = {**experiments.PPO, "pruning": {"sparsity": 0.0}}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("run") / "000000000", PLAIN, density=0.2)


def test_an_exported_checkpoint_earns_the_same_returns_on_the_same_seeds(checkpoint, tmp_path):
    result = export_checkpoint(
        checkpoint, ExportRequest(tmp_path / "policy.onnx", "onnx", episodes=2)
    )
    held = json.loads((tmp_path / "policy.onnx.json").read_text())
    assert held["about"]["as_rllib"]["holds"]
    assert held["about"]["recorded"] == {"first_seed": 10_000, "episodes": 2, "greedy": True}
    assert 0 < result["parameters"]["total"] < result["parameters"]["given"]
    assert {gone["kind"] for gone in result["compaction"]["removed"]} == {"neuron"}
    evaluator = Evaluator(configs.ppo(fcnet_hiddens=[16, 16]))
    evaluator.load_checkpoint(checkpoint)
    expected = evaluator.returns(500, 4)
    got = returns_of(open_artifact(tmp_path / "policy.onnx"), evaluator, range(500, 504))
    evaluator.close()
    assert got == expected


def test_a_policy_that_is_not_rllibs_is_not_written(checkpoint, tmp_path, monkeypatch):
    def wrong(evaluator: Any, *, sample: bool = False) -> Any:
        policy = deployable(evaluator, sample=sample)
        policy.network.module = plain_copy(policy).network.module
        scramble(policy.network.module, density=0.2, seed=1)
        return policy

    monkeypatch.setattr(exporter, "deployable", wrong)
    with pytest.raises(InvariantError, match="doesn't do what it does there"):
        export_checkpoint(checkpoint, ExportRequest(tmp_path / "policy.onnx", "onnx", episodes=1))
    assert list(tmp_path.iterdir()) == []
