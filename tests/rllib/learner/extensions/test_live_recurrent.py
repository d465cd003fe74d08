"""LSTMs shrink while they are trained, and states stay as wide as they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from rayprune.deploy.export.export import export_policy
from rayprune.deploy.policy.runs import random_inputs
from rayprune.pruning.layers.narrow_recurrent import is_narrow
from rayprune.rllib import models, prune
from rayprune.rllib.callback import learner_reports
from rayprune.rllib.checkpoints.files import restore, save
from rayprune.rllib.evaluation.evaluator import Evaluator
from rayprune.rllib.export.policy import deployable
from tests.rllib import configs, matrix

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(300)]

CELL = 16
LIVE = {"granularity": "neuron", "sparsity": 0.75, "compact_every": 100}


def of_ours() -> AlgorithmConfig:
    spec = RLModuleSpec(module_class=models.PrunableLSTM, model_config={"max_seq_len": 8})
    return configs.ppo().rl_module(rl_module_spec=spec, model_config={})


CASES = {
    "ppo": lambda: configs.ppo(**matrix.NETS["lstm"]),
    "dqn": lambda: matrix.config_of("DQN", "lstm", {}),
    "own": of_ours,
    "impala": lambda: matrix.config_of("IMPALA", "lstm", {}),
}


def narrow_layers(module: Any) -> dict[str, Any]:
    return {name: layer for name, layer in module.named_modules() if is_narrow(layer)}


@pytest.mark.parametrize(
    "case",
    ["ppo", *(pytest.param(case, marks=pytest.mark.slow) for case in CASES if case != "ppo")],
)
def test_an_lstm_shrinks_and_is_sampled_with_restored_and_exported(
    case: str, tmp_path: Path
) -> None:
    plain = CASES[case]()
    config = prune(plain, configs.pruning(**LIVE))
    algo = configs.build(config)
    try:
        for _ in range(3):
            algo.train()
        module = configs.learner_of(algo).module[DEFAULT_MODULE_ID].unwrapped()
        report = learner_reports(algo)[0][DEFAULT_MODULE_ID]
        assert report["parameters"]["held"] < 0.35 * report["parameters"]["total"]
        assert report["violations"] == {}
        narrow = narrow_layers(module)
        assert narrow
        for layer in narrow.values():
            assert layer.hidden_size == len(layer.state_places) < layer.state_places.max() + 2
        runner = algo.env_runner_group.local_env_runner.module
        for name, layer in narrow_layers(runner).items():
            assert torch.equal(layer.state_places, narrow[name].state_places)
        save(algo, tmp_path / "saved", None, {"env_steps": 600})
        weights = {name: weight.clone() for name, weight in module.state_dict().items()}
    finally:
        algo.stop()
    again = configs.build(config)
    try:
        restore(again, tmp_path / "saved")
        held = configs.learner_of(again).module[DEFAULT_MODULE_ID].unwrapped().state_dict()
        assert all(torch.equal(held[name], weight) for name, weight in weights.items())
        again.train()
    finally:
        again.stop()
    check_file(plain, tmp_path)


def check_file(config: AlgorithmConfig, folder: Path) -> None:
    """Assert that the checkpoint's policy is a file whose states have lost the units too."""
    evaluator = Evaluator(config)
    try:
        evaluator.load_checkpoint(folder / "saved")
        policy = deployable(evaluator)
    finally:
        evaluator.close()
    wide = [port.shape[-1] for port in policy.interface.states]
    zeros = [port.zeros(2) for port in policy.interface.inputs]
    recorded = random_inputs(policy.interface, zeros, 32, seed=0)
    told = export_policy(policy, folder / "policy.onnx", "onnx", recorded=recorded, about={})
    assert told["equivalence"]["random"]["holds"]
    assert told["equivalence"]["recorded"]["observations"] == 32
    shapes = [np.prod(port["shape"]) for port in told["interface"]["states"]]
    assert all(small < was for small, was in zip(shapes, wide, strict=True))
