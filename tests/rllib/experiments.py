"""Experiments small enough for a test, as a YAML file would say them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rayprune.config import ExperimentConfig, experiment_faults
from rayprune.rllib.training.train import run_training
from rayprune.tracking.reporter import NullReporter, Reporter
from tests.rllib.configs import REPLAY

PPO: dict[str, Any] = {
    "name": "tiny",
    "algorithm": "PPO",
    "env": "CartPole-v1",
    "seed": 3,
    "rllib": {
        "training": {"train_batch_size_per_learner": 200, "minibatch_size": 64, "num_epochs": 2},
        "env_runners": {"num_env_runners": 0, "num_envs_per_env_runner": 2},
        "rl_module": {"model_config": {"fcnet_hiddens": [16, 16]}},
    },
    "pruning": {"sparsity": 0.8, "schedule": {"begin": 0.1, "end": 0.6, "every": 200}},
    "stop": {"env_steps": 1200},
    "evaluation": {"every": 400, "episodes": 3},
    "tracking": {"wandb": "off", "tensorboard": False},
}

DQN: dict[str, Any] = {
    **PPO,
    "algorithm": "DQN",
    "rllib": {
        "training": {
            "num_steps_sampled_before_learning_starts": 100,
            "train_batch_size": 16,
            "target_network_update_freq": 50,
        },
        "env_runners": {"num_env_runners": 0},
        "reporting": {"min_sample_timesteps_per_iteration": 100},
        "rl_module": {"model_config": {"fcnet_hiddens": [16, 16]}},
    },
    "stop": {"env_steps": 600},
    "evaluation": {"every": 200, "episodes": 3},
}

SAC: dict[str, Any] = {
    **PPO,
    "algorithm": "SAC",
    "env": "Pendulum-v1",
    "rllib": {
        "training": {
            "num_steps_sampled_before_learning_starts": 50,
            "train_batch_size_per_learner": 16,
            "replay_buffer_config": REPLAY,
        },
        "env_runners": {"num_env_runners": 0},
        "reporting": {"min_sample_timesteps_per_iteration": 50},
        "rl_module": {"model_config": {"fcnet_hiddens": [16, 16]}},
    },
    "stop": {"env_steps": 300},
    "evaluation": {"every": 100, "episodes": 2},
}


def experiment(base: Mapping[str, Any], **changes: Any) -> ExperimentConfig:
    """Return a checked experiment."""
    faults, checked = experiment_faults({**copy.deepcopy(dict(base)), **changes})
    assert checked is not None, faults
    return checked


def train(
    what: ExperimentConfig, out: Path, *, resume: bool = False, reporter: Reporter | None = None
) -> dict[str, Any]:
    """Run it in this process, in the session's Ray."""
    return run_training(what, out, resume=resume, address=None, reporter=reporter or NullReporter())
