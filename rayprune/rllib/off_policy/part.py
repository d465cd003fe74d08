"""Training by replay as a part of training that can be made lean."""

from __future__ import annotations

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.dqn.dqn import DQN
from ray.rllib.utils import force_list

from rayprune.rllib.off_policy.training import has_own_step, train_leanly


class LeanReplay:
    """Lets an Algorithm that replays take a leaner training step than DQN's of RLlib."""

    name = "training step"

    def concerns(self, config: AlgorithmConfig) -> bool:
        """Whether the algorithm is of DQN's family; CQL, which replays nothing, is."""
        return config.algo_class is None or issubclass(config.algo_class, DQN)

    def reason_against(self, config: AlgorithmConfig) -> str:
        """Return why RLlib's training step stays."""
        if config.algo_class is None or has_own_step(config.algo_class):
            return "it is not DQN's"
        if config.is_multi_agent:
            return "there are several agents"
        if config.count_steps_by != "env_steps":
            return "steps are counted by agent"
        return "a burn-in is asked for" if getattr(config, "burn_in_len", 0) else ""

    def apply(self, config: AlgorithmConfig) -> None:
        """Have the Algorithm look at its parts, and take it, once it is set up."""
        others = list(force_list(config.callbacks_on_algorithm_init))
        if train_leanly not in others:
            config.callbacks(on_algorithm_init=[*others, train_leanly])
