"""Real training over each of the maskable RLModules, and their checkpoints."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.appo import APPOConfig
from ray.rllib.algorithms.impala import IMPALAConfig
from ray.rllib.algorithms.ppo import PPO, PPOConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from rayprune.rllib.models import (
    ActorCritic,
    PrunableLSTM,
    PrunableMLP,
    PrunableNatureCNN,
    PrunableResidualCNN,
)
from tests.rllib.models.small_modules import (
    ACTIONS,
    SHARED,
    SMALL,
    observation_space,
)


def configure(
    config: AlgorithmConfig, module_class: type[ActorCritic], action_space: gym.Space, **given
) -> AlgorithmConfig:
    return (
        config.environment(
            "rayprune-random",
            env_config={
                "observation_space": observation_space(module_class),
                "action_space": action_space,
            },
        )
        .env_runners(num_env_runners=0, num_envs_per_env_runner=1)
        .rl_module(
            rl_module_spec=RLModuleSpec(
                module_class=module_class, model_config=given or SMALL[module_class]
            )
        )
        .debugging(seed=0)
    )


def ppo(module_class: type[ActorCritic], space: str, **given) -> PPOConfig:
    config = configure(PPOConfig(), module_class, ACTIONS[space][0], **given)
    return config.training(train_batch_size_per_learner=40, minibatch_size=20, num_epochs=1)


def weights(algorithm: PPO) -> dict[str, np.ndarray]:
    return algorithm.learner_group._learner.module[DEFAULT_MODULE_ID].get_state()


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("module_class", "space", "configs"),
    [
        (PrunableMLP, "discrete", SMALL),
        pytest.param(PrunableMLP, "multi_discrete", SHARED, marks=pytest.mark.slow),
        (PrunableMLP, "box", {PrunableMLP: {"free_log_std": True}}),
        (PrunableNatureCNN, "discrete", SMALL),
        pytest.param(PrunableResidualCNN, "discrete", SMALL, marks=pytest.mark.slow),
        (PrunableResidualCNN, "box", SHARED),
        (PrunableLSTM, "discrete", SMALL),
        pytest.param(PrunableLSTM, "multi_discrete", SHARED, marks=pytest.mark.slow),
        pytest.param(PrunableLSTM, "box", SMALL, marks=pytest.mark.slow),
    ],
)
def test_ppo_trains_and_comes_back_from_its_checkpoint(
    ray_session: None, tmp_path: Path, module_class, space, configs
):
    algorithm = ppo(module_class, space, **configs[module_class]).build_algo()
    before = weights(algorithm)
    result = [algorithm.train() for _ in range(2)][-1]
    assert np.isfinite(result["learners"][DEFAULT_MODULE_ID]["total_loss"])
    after = weights(algorithm)
    unchanged = [name for name in before if (before[name] == after[name]).all()]
    assert unchanged == []

    # The EnvRunner's policy is the Learner's.
    runner = algorithm.env_runner.module
    for name, weight in runner.state_dict().items():
        np.testing.assert_array_equal(weight.numpy(), after[name])
    assert hasattr(runner, "value") == ("value" in getattr(runner.settings, "cells", {}))

    checkpoint = algorithm.save_to_path(tmp_path / "checkpoint")
    algorithm.stop()
    restored = PPO.from_checkpoint(checkpoint)
    for name, weight in weights(restored).items():
        np.testing.assert_array_equal(weight, after[name])
    restored.train()
    restored.stop()


@pytest.mark.slow  # remote workers; test_matrix.py has both with RLlib's modules
@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("config_class", "module_class"), [(APPOConfig, PrunableLSTM), (IMPALAConfig, PrunableMLP)]
)
def test_appo_and_impala_train(ray_session: None, config_class, module_class):
    config = configure(config_class(), module_class, ACTIONS["discrete"][0])
    config.env_runners(num_env_runners=1, rollout_fragment_length=10)
    config.training(train_batch_size_per_learner=40)
    config.reporting(min_time_s_per_iteration=0, min_train_timesteps_per_iteration=40)
    algorithm = config.build_algo()
    try:
        for _ in range(10):
            result = algorithm.train()
            if "total_loss" in result.get("learners", {}).get(DEFAULT_MODULE_ID, {}):
                break
        assert np.isfinite(result["learners"][DEFAULT_MODULE_ID]["total_loss"])
    finally:
        algorithm.stop()
