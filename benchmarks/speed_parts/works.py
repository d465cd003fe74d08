"""Works that are trained on: the same nets, batches, epochs and environments for each library.

Learning rates are so small that weights stay where they are, and with them the length of episodes
and the work of a step: what differs between two arms is what they do, not what they have learnt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

RATE: Final = 1e-7
BEFORE_LEARNING: Final = 300
"""Env steps in the replay buffer before updates begin."""
EPSILON: Final = 0.05

CONV_FILTERS: Final = ([16, 3, 1], [16, 3, 2])
"""Of MinAtar's net: channels, kernel, stride; padded so that a stride of 1 keeps the size."""
CONV_HEAD: Final = 128

Model = Mapping[str, Any]


@dataclass(frozen=True)
class Targets:
    """The most that a ratio of CPU times may be."""

    rllib: float
    """Of a pruning run to RLlib as shipped."""
    sb3: float
    """Of a pruning run to Stable-Baselines3."""


@dataclass(frozen=True)
class Work:
    """One algorithm on one environment."""

    algorithm: str
    env: str
    envs: int
    """Environments that are stepped side by side."""
    model: Model
    """RLlib's ``model_config``."""
    steps: int
    """Env steps of one ``train()``."""
    minibatch: int
    rounds: int
    pruned: Targets
    """Dense and at 90 % sparsity."""
    compacted: Targets
    """With 75 % of its neurons gone."""
    epochs: int = 1
    """Of PPO."""
    quick_steps: int | None = None
    """Env steps of one ``train()`` with ``--quick``; None leaves them."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """More of RLlib's ``training`` keywords."""

    @property
    def replays(self) -> bool:
        """Whether it learns from a replay buffer."""
        return self.algorithm != "PPO"

    def quick(self) -> Work:
        """Return it with fewer rounds and shorter turns."""
        return replace(self, rounds=3, steps=self.quick_steps or self.steps)


ON_POLICY: Final = Targets(0.55, 0.9)
ON_POLICY_SMALL: Final = Targets(0.45, 0.8)
OFF_POLICY_SMALL: Final = Targets(0.15, 0.8)

_SAC: Final = Work(
    "SAC",
    "Pendulum-v1",
    envs=1,
    model={},
    steps=60,
    quick_steps=30,
    minibatch=256,
    rounds=9,
    pruned=Targets(0.20, 1.1),
    compacted=OFF_POLICY_SMALL,
)

WORKS: Final[Mapping[str, Work]] = {
    "ppo_cartpole": Work(
        "PPO",
        "CartPole-v1",
        envs=8,
        model={"fcnet_hiddens": [256, 256]},
        steps=2000,
        minibatch=128,
        epochs=10,
        rounds=15,
        pruned=ON_POLICY,
        compacted=ON_POLICY_SMALL,
    ),
    "ppo_hopper": Work(
        "PPO",
        "Hopper-v5",
        envs=1,
        model={"fcnet_hiddens": [64, 64]},
        steps=2048,
        minibatch=64,
        epochs=10,
        rounds=9,
        pruned=ON_POLICY,
        compacted=ON_POLICY_SMALL,
    ),
    # tune_configs/games/ppo_minatar_breakout.yaml
    "ppo_minatar": Work(
        "PPO",
        "rayprune.envs:MinBreakout-v0",
        envs=16,
        model={
            "conv_filters": [list(layer) for layer in CONV_FILTERS],
            "conv_activation": "relu",
            "fcnet_hiddens": [],
            "head_fcnet_hiddens": [CONV_HEAD],
            "head_fcnet_activation": "relu",
            "vf_share_layers": True,
        },
        steps=2048,
        minibatch=512,
        epochs=4,
        rounds=9,
        pruned=Targets(0.7, 1.0),
        compacted=ON_POLICY_SMALL,
        training={"entropy_coeff": 0.01, "grad_clip": 0.5, "vf_clip_param": 10000.0},
    ),
    "dqn_cartpole": Work(
        "DQN",
        "CartPole-v1",
        envs=1,
        model={"fcnet_hiddens": [256, 256]},
        steps=200,
        quick_steps=100,
        minibatch=64,
        rounds=12,
        pruned=Targets(0.20, 1.2),
        compacted=OFF_POLICY_SMALL,
    ),
    # The policy is Stable-Baselines3's, 256x256; the Q nets, which join observation and action
    # after a layer each, are the smallest that RLlib makes of it: three times SB3's weights.
    "sac_pendulum": replace(
        _SAC,
        model={
            "fcnet_hiddens": [256],
            "fusionnet_hiddens": [],
            "head_fcnet_hiddens": [256],
            "head_fcnet_activation": "tanh",
        },
    ),
    # What `fcnet_hiddens: [256, 256]` gives: Q nets with ten times SB3's weights.
    "sac_pendulum_wide": replace(
        _SAC, model={"fcnet_hiddens": [256, 256], "fusionnet_hiddens": [256, 256]}
    ),
}


def rllib_config(work: Work) -> Any:
    """Return RLlib's AlgorithmConfig of a work, as shipped but for what the work says."""
    config = _CONFIGS[work.algorithm](work)
    return (
        config.environment(work.env)
        .env_runners(num_env_runners=0, num_envs_per_env_runner=work.envs)
        .learners(num_learners=0)
        .rl_module(model_config=dict(work.model))
        .debugging(seed=0, log_level="ERROR")
    )


def _ppo(work: Work) -> Any:
    from ray.rllib.algorithms.ppo import PPOConfig

    return PPOConfig().training(
        lr=RATE,
        train_batch_size_per_learner=work.steps,
        minibatch_size=work.minibatch,
        num_epochs=work.epochs,
        **work.training,
    )


def _dqn(work: Work) -> Any:
    from ray.rllib.algorithms.dqn import DQNConfig

    return _replaying(DQNConfig().training(lr=RATE, epsilon=EPSILON), work)


def _sac(work: Work) -> Any:
    from ray.rllib.algorithms.sac import SACConfig

    return _replaying(SACConfig().training(actor_lr=RATE, critic_lr=RATE, alpha_lr=RATE), work)


def _replaying(config: Any, work: Work) -> Any:
    """Add what makes one update a step, and ``work.steps`` of them a ``train()``."""
    return (
        config.training(
            train_batch_size_per_learner=work.minibatch,
            num_steps_sampled_before_learning_starts=BEFORE_LEARNING,
            **work.training,
        )
        .env_runners(rollout_fragment_length=1)
        .reporting(min_sample_timesteps_per_iteration=work.steps, min_time_s_per_iteration=0)
    )


_CONFIGS: Final[Mapping[str, Callable[[Work], Any]]] = {"PPO": _ppo, "DQN": _dqn, "SAC": _sac}
