"""Algorithm configs small enough for a test, and pruning that is over within it."""

from __future__ import annotations

from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.algorithms.tqc import TQCConfig

from rayprune import PruningConfig

FRAGMENT = 4
"""Env steps to an update of DQN and SAC: updates are what their tests take long for."""
REPLAY = {"type": "PrioritizedEpisodeReplayBuffer", "capacity": 4096, "alpha": 0.6, "beta": 0.4}
"""SAC's own kind, without the million leaves that take half a second to make."""
AT_ONCE = {"kind": "one_shot", "begin": 0, "every": 1}


def pruning(**changes: Any) -> PruningConfig:
    """80 % by L1, uniform, at the end of the first update."""
    return PruningConfig(**{"sparsity": 0.8, "schedule": AT_ONCE, "horizon": 10_000, **changes})


def ppo(env: Any = "CartPole-v1", **model: Any) -> PPOConfig:
    """PPO with 200 steps an iteration."""
    return (
        PPOConfig()
        .environment(env)
        .env_runners(num_env_runners=0, num_envs_per_env_runner=2)
        .training(train_batch_size_per_learner=200, minibatch_size=64, num_epochs=2)
        .rl_module(model_config={"fcnet_hiddens": [32, 32], **model})
        .debugging(seed=0, log_level="ERROR")
    )


def dqn(**training: Any) -> DQNConfig:
    """DQN that learns from its first iteration on."""
    return (
        DQNConfig()
        .environment("CartPole-v1")
        .env_runners(num_env_runners=0, rollout_fragment_length=FRAGMENT)
        .training(
            num_steps_sampled_before_learning_starts=50,
            train_batch_size=16,
            target_network_update_freq=20,
            **training,
        )
        .reporting(min_sample_timesteps_per_iteration=100)
        .rl_module(model_config={"fcnet_hiddens": [32, 32]})
        .debugging(seed=0, log_level="ERROR")
    )


def sac() -> SACConfig:
    """SAC with small nets."""
    return _like_sac(SACConfig())


def tqc() -> TQCConfig:
    """TQC with small nets, and few quantiles."""
    config: TQCConfig = _like_sac(TQCConfig().training(n_quantiles=5))
    return config


def _like_sac(config: Any) -> Any:
    return (
        config.environment("Pendulum-v1")
        .env_runners(num_env_runners=0, rollout_fragment_length=FRAGMENT)
        .training(
            num_steps_sampled_before_learning_starts=50,
            train_batch_size_per_learner=16,
            initial_alpha=1.5,
            replay_buffer_config=REPLAY,
        )
        # RLlib would go on for a second, however many steps that is.
        .reporting(min_sample_timesteps_per_iteration=60, min_time_s_per_iteration=0)
        .rl_module(model_config={"fcnet_hiddens": [32, 32], "head_fcnet_hiddens": []})
        .debugging(seed=0, log_level="ERROR")
    )


def learner_of(algorithm: Any) -> Any:
    """The local Learner of an algorithm without remote ones."""
    return algorithm.learner_group._learner


def build(config: AlgorithmConfig) -> Any:
    """Build the algorithm."""
    return config.build_algo()
