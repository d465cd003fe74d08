"""A Learner alone: modules of all kinds shrink, and an EnvRunner's takes what is left."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME

from rayprune.rllib import models, prune
from tests.rllib import configs

IMAGE, ACTIONS, ROWS = (42, 42, 4), 3, 8
PADDED_CNN = {
    "conv_filters": [[16, 4, 2], [16, 4, 2]],
    "conv_activation": "relu",
    "head_fcnet_hiddens": [32],
}
NEURON = {"granularity": "neuron", "sparsity": 0.75}
HYBRID = {"granularity": "hybrid", "sparsity": None, "hybrid": {"neuron": 0.6, "weight": 0.8}}


def own(module_class: type) -> Any:
    spec = RLModuleSpec(module_class=module_class, model_config={})
    return configs.ppo().rl_module(rl_module_spec=spec, model_config={})


CASES: dict[str, tuple[Any, tuple[int, ...]]] = {
    "shared_encoder": (lambda: configs.ppo(vf_share_layers=True), (5,)),
    "padded_cnn": (lambda: configs.ppo(**PADDED_CNN), IMAGE),
    "own_mlp": (lambda: own(models.PrunableMLP), (5,)),
    "own_residual": (lambda: own(models.PrunableResidualCNN), IMAGE),
    "own_simba": (lambda: own(models.PrunableSimBa), (5,)),
}


@pytest.mark.parametrize(
    "case",
    [
        "padded_cnn",
        "own_mlp",
        pytest.param("shared_encoder", marks=pytest.mark.slow),
        pytest.param("own_residual", marks=pytest.mark.slow),
        pytest.param("own_simba", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("pruning", [NEURON, HYBRID], ids=["neuron", "hybrid"])
def test_a_module_shrinks_and_an_env_runners_takes_its_size(
    case: str, pruning: dict[str, Any]
) -> None:
    make, shape = CASES[case]
    space = gym.spaces.Box(-1, 1, shape, np.float32)
    config = make().environment(None, observation_space=space, action_space=gym.spaces.Discrete(3))
    config = prune(config, configs.pruning(compact_every=10, **pruning))
    learner = config.copy().build_learner()
    for step in (100, 200):
        learner.update(
            batch=batch_of(shape),
            timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: step},
            minibatch_size=ROWS,
            num_epochs=1,
        )
    report, module = learner.pruning_report()[DEFAULT_MODULE_ID], learner.module[DEFAULT_MODULE_ID]
    # Of SimBa's residual streams few units are dead in all that write to them.
    most = 0.45 if case == "own_simba" else 0.3
    assert report["parameters"]["held"] < most * report["parameters"]["total"]
    assert report["violations"] == {}
    assert report["sparsity"] >= 0.75
    runner = config.get_rl_module_spec(inference_only=True).build()
    runner.set_state(module.get_state(inference_only=True))
    given = {"obs": torch.randn(2, *shape)}
    ours, theirs = (m.forward_inference(given)["action_dist_inputs"] for m in (module, runner))
    assert torch.equal(ours, theirs)


def batch_of(shape: tuple[int, ...]) -> MultiAgentBatch:
    torch.manual_seed(0)
    columns = {
        "obs": torch.randn(ROWS, *shape),
        "actions": torch.randint(ACTIONS, (ROWS,)),
        "action_dist_inputs": torch.zeros(ROWS, ACTIONS),
        "action_logp": torch.full((ROWS,), -float(np.log(ACTIONS))),
        "advantages": torch.randn(ROWS),
        "value_targets": torch.randn(ROWS),
    }
    return MultiAgentBatch({DEFAULT_MODULE_ID: SampleBatch(columns)}, env_steps=ROWS)
