"""IMPALA and APPO, which update in a thread of their own, learn leanly what RLlib's loop does."""

from __future__ import annotations

import copy
import time
from typing import Any

import numpy as np
import pytest
import torch
from ray.rllib.algorithms.appo import APPOConfig
from ray.rllib.algorithms.impala import IMPALAConfig
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.utils.metrics import (
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    NUM_ENV_STEPS_TRAINED_LIFETIME,
)

from rayprune.rllib.learner.updates.parts import CLIPPING, COUNTS, GRADIENTS, MINIBATCHES, STEP
from tests.rllib.learner.updates import twins

pytestmark = pytest.mark.timeout(120)

UPDATES = 4


def config_of(kind: Any, **training: Any) -> Any:
    config = kind().environment("CartPole-v1")
    config.env_runners(
        num_env_runners=0, num_envs_per_env_runner=2, rollout_fragment_length=25
    ).training(train_batch_size_per_learner=50, grad_clip=0.5, broadcast_interval=1000, **training)
    return config.rl_module(model_config={"fcnet_hiddens": [16, 16]}).debugging(seed=0)


def learned(learner: Any, samples: list[Any], **options: Any) -> list[Any]:
    """Update with each of some samples, one after the other; return what was learned and logged."""
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    try:
        for number, episodes in enumerate(samples, start=1):
            learner.update(
                training_data=TrainingData(episodes=copy.deepcopy(episodes)),
                timesteps={
                    NUM_ENV_STEPS_SAMPLED_LIFETIME: 50 * number,
                    NUM_ENV_STEPS_TRAINED_LIFETIME: 50 * number,
                },
                **options,
            )
            while learner._num_updates < number:
                time.sleep(0.001)
        logged = learner.metrics.reduce()["default_policy"]
        return [twins.learned(learner), logged]
    finally:
        learner.shutdown()


@pytest.mark.parametrize(
    ("kind", "training", "options"),
    [
        (APPOConfig, {"use_circular_buffer": False, "target_network_update_freq": 1}, {}),
        (IMPALAConfig, {"entropy_coeff": [[0, 0.1], [100, 0.0]]}, {}),
        pytest.param(
            IMPALAConfig,
            {},
            {"minibatch_size": 25, "num_epochs": 2, "shuffle_batch_per_epoch": True},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_the_same_is_learned_and_logged(kind: Any, training: Any, options: Any) -> None:
    config = config_of(kind, **training)
    env_runner = SingleAgentEnvRunner(config=config.copy(copy_frozen=False))
    config.environment(
        observation_space=env_runner.env.single_observation_space,
        action_space=env_runner.env.single_action_space,
    )
    samples = [env_runner.sample() for _ in range(UPDATES)]
    first, second = twins.twins(config, plasticity=None)
    lean = {
        part for part in (STEP, GRADIENTS, CLIPPING, MINIBATCHES, COUNTS) if part in second._lean
    }
    found = [learned(learner, samples, **options) for learner in (first, second)]
    assert twins.differences(*found) == []
    assert len(lean) == 5
