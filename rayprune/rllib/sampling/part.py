"""EnvRunners as a part of training that can be made lean."""

from __future__ import annotations

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

from rayprune.rllib.sampling.env_runner import LeanEnvRunner
from rayprune.rllib.sampling.watchers import step_watchers


class LeanSampling:
    """Lets a config's EnvRunners sample into arrays; each looks at its own connectors then."""

    name = "EnvRunner"

    def concerns(self, config: AlgorithmConfig) -> bool:
        """Whether there are EnvRunners: there always are."""
        return True

    def reason_against(self, config: AlgorithmConfig) -> str:
        """Return why RLlib's EnvRunner stays."""
        if config.is_multi_agent:
            return "there are several agents"
        if config.output:
            return "it records what it samples"
        if config.env_runner_cls not in (None, SingleAgentEnvRunner, LeanEnvRunner):
            return f"the config has its own, {config.env_runner_cls.__qualname__}"
        watchers = step_watchers(config)
        return f"the callback {watchers[0]} watches every step" if watchers else ""

    def apply(self, config: AlgorithmConfig) -> None:
        """Set our EnvRunner."""
        config.env_runners(env_runner_cls=LeanEnvRunner)
