"""How an EnvRunner's module acts on a vector of environments: connectors and forward pass."""

from __future__ import annotations

from typing import Any

import torch
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule

from rayprune.rllib.sampling import to_env, to_module
from rayprune.rllib.sampling.episodes import NewEpisodes
from rayprune.rllib.sampling.forwards import exploring
from rayprune.rllib.sampling.stepping import stepping
from rayprune.rllib.sampling.to_env import ToEnv
from rayprune.rllib.sampling.to_module import Inputs, ToModule
from rayprune.rllib.sampling.watchers import watches_episodes, watches_samples, watches_steps
from rayprune.rllib.settings.foreign_code import unknown_classes


class Acting:
    """What an EnvRunner acts with, as it stands.

    Args:
        env_runner: with environments and a module.
    """

    def __init__(self, env_runner: Any) -> None:
        self._held = _held(env_runner)
        self.reason = _reason_against(env_runner)
        """Why RLlib's own loop is taken, in words; empty where it isn't."""
        self.is_watched = watches_episodes(env_runner)
        """Whether callbacks see episodes begin and end."""
        self.are_samples_watched = self.is_watched or watches_samples(env_runner)
        """Whether callbacks see episodes at all."""
        if self.reason:
            return
        module = env_runner.module
        self._module = module
        own = bool(unknown_classes(type(module))) or not _has_plain_forwards(module)
        self._explore = None if own else exploring(module)
        env = env_runner.env
        self.new_episodes = NewEpisodes(env.single_observation_space, env.single_action_space)
        self.to_module = ToModule(env_runner._env_to_module, module, env_runner._device, copies=own)
        self.to_env = ToEnv(env_runner._module_to_env, module, copies=own)
        self.step = stepping(env)
        """Steps the environments."""

    def is_of(self, env_runner: Any) -> bool:
        """Whether an EnvRunner still acts with that."""
        return self._held == _held(env_runner)

    def forward(self, inputs: Inputs, *, explore: bool, step: int) -> dict[str, Any]:
        """Run the module.

        Args:
            inputs: of all environments.
            explore: whether to explore.
            step: lifetime env steps, by which exploration is scheduled.
        """
        module: Any = self._module
        outputs: dict[str, Any]
        if self._explore is None:
            # It may ask for gradients, or tell training from evaluation, as it likes.
            if explore:
                outputs = module.forward_exploration(inputs, t=step)
            else:
                outputs = module.forward_inference(inputs)
            return outputs
        if module.training:
            # RLlib goes there and back at every step, through all layers.
            module.eval()
        with torch.no_grad():
            return self._explore(inputs, step) if explore else module._forward_inference(inputs)


def _held(env_runner: Any) -> tuple[Any, ...]:
    return (
        list(env_runner._env_to_module.connectors),
        list(env_runner._module_to_env.connectors),
        env_runner.module,
        dict(getattr(env_runner.module, "_modules", {})),
        env_runner.env,
        # Bound, unless somebody has put another function there.
        getattr(env_runner.env, "step", None),
        getattr(getattr(env_runner.env, "unwrapped", None), "step", None),
    )


def _reason_against(env_runner: Any) -> str:
    if not isinstance(env_runner.module, TorchRLModule):
        return "there is no torch module that acts"
    if watches_steps(env_runner):
        return "a callback watches every step"
    env = env_runner.env
    return to_module.reason_against(
        env_runner._env_to_module, env.single_observation_space
    ) or to_env.reason_against(env_runner._module_to_env, env.single_action_space)


def _has_plain_forwards(module: Any) -> bool:
    kind = type(module)
    return (
        kind.forward_exploration is TorchRLModule.forward_exploration
        and kind.forward_inference is TorchRLModule.forward_inference
    )
