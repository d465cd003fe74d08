"""A first YAML for an environment: sensible choices by its spaces, each with a comment."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import gymnasium as gym

from rayprune.errors import ConfigError, InputError, did_you_mean
from rayprune.extras import installed

ALGORITHMS: Final = ("PPO", "DQN", "SAC")
"""What there is a first config for."""
BUDGETS: Final[Mapping[str, int]] = {"PPO": 200_000, "DQN": 50_000, "SAC": 50_000}
"""Env steps by algorithm: on-policy learning needs more."""
LEAST_BUDGET: Final = 4000
_USUAL_SIDES: Final = (10, 42, 64, 84, 96)
"""Of the square images that RLlib has convolutions for."""
_CHOICES: Final = (gym.spaces.Discrete, gym.spaces.MultiDiscrete)


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstConfig:
    """What a first config is of."""

    env: str
    algorithm: str
    budget: int
    spaces: tuple[gym.Space[Any], gym.Space[Any]]
    """Of observations and of actions."""
    env_config: Mapping[str, Any]
    sparsity: float = 0.9
    seed: int = 0
    schema: Path | None = None
    """Where the YAML's schema lies, for editors."""

    @property
    def name(self) -> str:
        """The run's: the algorithm and the environment.

        >>> box = gym.spaces.Discrete(2)
        >>> FirstConfig(
        ...     env="rayprune.envs:LongPole-v0", algorithm="PPO", budget=1, spaces=(box, box),
        ...     env_config={},
        ... ).name
        'ppo_longpole'
        """
        bare = re.sub(r"-v\d+$", "", self.env.rpartition(":")[2].rpartition("/")[2])
        return f"{self.algorithm}_{re.sub(r'[^A-Za-z0-9]+', '_', bare).strip('_')}".lower()

    @property
    def images(self) -> bool:
        """Whether the policy sees images."""
        from rayprune.rllib.connectors.encoding import is_image

        return is_image(self.spaces[0])

    def text(self, file: str | None = None) -> str:
        """Return the YAML.

        Args:
            file: that it is written to, for its head's commands; None: named like the run.
        """
        head = self._head(file or f"{self.name}.yaml")
        return "\n".join([*head, *_LEARNING[self.algorithm](self), *self._tail(), ""])

    def _head(self, file: str) -> list[str]:
        observation, action = (" ".join(str(space).split()) for space in self.spaces)
        schema = [] if self.schema is None else [f"# yaml-language-server: $schema={self.schema}"]
        return [
            f"# {self.algorithm} on {self.env}, pruned to {self.sparsity:.0%}"
            f" of its weights while it learns.".replace("%", " %"),
            f"#   rayprune train {file} --plan    # checks it, and tells what would run",
            f"#   rayprune train {file}",
            "# Begun by `rayprune init`; nothing in it was tuned for this environment.",
            *schema,
            f"name: {self.name}                # names the run's directory: runs/NAME-seedN",
            f"algorithm: {self.algorithm}",
            f"env: {json.dumps(self.env)}",
            f"# observations: {observation}",
            f"# actions:      {action}",
            f"env_config: {json.dumps(dict(self.env_config))}",
            f"seed: {self.seed}                        # another: --seed 1",
        ]

    def _net(self, keys: str) -> str:
        if not self.images:
            return f"  rl_module: {{model_config: {{{keys}}}}}"
        if self._has_usual_side():
            return "  # RLlib chooses convolutions by the images' size; `conv_filters` sets them."
        return (
            "  rl_module:                   # [filters, kernel, stride] of each layer\n"
            "    model_config: {conv_filters: [[16, 4, 2], [32, 4, 2], [64, 4, 2]]}"
        )

    def _has_usual_side(self) -> bool:
        """Whether RLlib has convolutions of its own for images of this size."""
        from rayprune.rllib.connectors.encoding import Encoding

        height, width, _ = Encoding(self.spaces[0]).space.shape or (0, 0, 0)
        return height == width and height in _USUAL_SIDES

    def _normalised(self) -> list[str]:
        from rayprune.rllib.connectors.encoding import has_readings

        if not has_readings(self.spaces[0]):
            return ["normalise: {observations: false}   # of choices and images nothing is"]
        return [
            "# Each reading is centred and scaled by statistics that travel with the policy.",
            "normalise: {observations: true}",
        ]

    def _tail(self) -> list[str]:
        every = max(self.budget // 100, 500)
        return [
            *self._normalised(),
            "pruning:",
            f"  sparsity: {self.sparsity}   # of what the recipe prunes; 0 is a dense run",
            "  recipe: recommended          # says the rest of this block; `rayprune list recipes`",
            "  # To choose for yourself, drop the recipe and say, for instance:",
            "  # criterion: l1              # the smallest weights go; `rayprune list criteria`",
            "  # granularity: weight        # neuron makes the network itself smaller",
            "  # distribution: erk          # small layers keep more than large ones",
            f"  # schedule: {{kind: cubic, begin: 0.2, end: 0.65, every: {every}}}",
            f"stop: {{env_steps: {self.budget}}}",
            "evaluation:",
            f"  every: {max(self.budget // 10, 1000)}   # env steps between validations",
            "  episodes: 20",
            "  dense: null                  # train: a dense twin too, which takes as long again",
            f"tracking: {{wandb: {'offline' if installed('wandb') else 'off'}, tensorboard: true}}",
        ]


def default_algorithm(action_space: gym.Space[Any]) -> str:
    """Return the algorithm that suits an action space.

    >>> default_algorithm(gym.spaces.Discrete(2))
    'PPO'
    >>> default_algorithm(gym.spaces.Box(-1, 1, (2,)))
    'SAC'
    """
    bounded = isinstance(action_space, gym.spaces.Box) and action_space.is_bounded()
    return "SAC" if bounded else "PPO"


def check_algorithm(name: str, action_space: gym.Space[Any] | None = None) -> str:
    """Return an algorithm's name as it is written.

    Raises:
        ConfigError: there is no first config of it, or it doesn't take such actions.
    """
    if name.upper() not in ALGORITHMS:
        raise ConfigError(
            f"`--algorithm` must be one of {list(ALGORITHMS)}, but is {name!r}."
            f"{did_you_mean(name.upper(), ALGORITHMS)} For another begin with a file of "
            "`rayprune list configs`."
        )
    chosen = name.upper()
    if chosen == "DQN" and action_space is not None and not isinstance(action_space, _CHOICES[0]):
        raise ConfigError(
            f"`--algorithm` DQN takes actions of Discrete alone, but these are {action_space}. "
            f"Take {default_algorithm(action_space)}."
        )
    return chosen


def check_budget(steps: int) -> int:
    """Refuse a run that is too short to learn, be validated and be pruned in.

    Raises:
        InputError: says the least.
    """
    if steps < LEAST_BUDGET:
        raise InputError(
            f"`--budget` must be at least {LEAST_BUDGET} env steps, but is {steps}. Edit `stop` "
            "for a shorter run."
        )
    return steps


def _ppo(config: FirstConfig) -> list[str]:
    batch = min(2000, config.budget // 10)
    return [
        "rllib:                         # RLlib's AlgorithmConfig, by its methods' names",
        "  training:",
        "    lr: 0.0003",
        f"    train_batch_size_per_learner: {batch}",
        "    minibatch_size: 128",
        "    num_epochs: 10",
        "    vf_clip_param: 10000.0     # RLlib's 10 is too low for large returns",
        "  env_runners: {num_env_runners: 0, num_envs_per_env_runner: 8}   # 0: in this process",
        "  learners: {num_learners: 0, num_gpus_per_learner: auto}",
        config._net("fcnet_hiddens: [256, 256]"),
    ]


def _dqn(config: FirstConfig) -> list[str]:
    return [
        "rllib:                         # RLlib's AlgorithmConfig, by its methods' names",
        "  training:",
        "    lr: 0.0005",
        "    train_batch_size_per_learner: 32",
        "    training_intensity: 32     # one update for each step",
        "    num_steps_sampled_before_learning_starts: 1000",
        "    target_network_update_freq: 500",
        "    n_step: 3",
        f"    epsilon: [[0, 1.0], [{config.budget // 5}, 0.02]]",
        "    replay_buffer_config: {type: PrioritizedEpisodeReplayBuffer, capacity: 50000}",
        "  env_runners:",
        "    {num_env_runners: 0, num_envs_per_env_runner: 1, rollout_fragment_length: 3}",
        "  reporting: {min_sample_timesteps_per_iteration: 1000}",
        "  learners: {num_learners: 0, num_gpus_per_learner: auto}",
        config._net("fcnet_hiddens: [256], fcnet_activation: relu, head_fcnet_hiddens: [256]"),
    ]


def _sac(config: FirstConfig) -> list[str]:
    return [
        "rllib:                         # RLlib's AlgorithmConfig, by its methods' names",
        "  training:",
        "    actor_lr: 0.0003",
        "    critic_lr: 0.0003",
        "    alpha_lr: 0.0003",
        "    train_batch_size_per_learner: 256",
        "    num_steps_sampled_before_learning_starts: 1000",
        "    replay_buffer_config: {type: EpisodeReplayBuffer, capacity: 100000}",
        "  env_runners:",
        "    {num_env_runners: 0, num_envs_per_env_runner: 1, rollout_fragment_length: 1}",
        "  reporting: {min_sample_timesteps_per_iteration: 1000}",
        "  learners: {num_learners: 0, num_gpus_per_learner: auto}",
        config._net(
            "fcnet_hiddens: [256, 256], fcnet_activation: relu, head_fcnet_hiddens: []"
            # Q nets of choices don't see an action that they could join.
            + ("" if isinstance(config.spaces[1], _CHOICES) else ", fusionnet_hiddens: [256]")
        ),
    ]


_LEARNING: Final = {"PPO": _ppo, "DQN": _dqn, "SAC": _sac}
