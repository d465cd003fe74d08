"""Which observation and action spaces the modules take, and what the spaces ask of the nets."""

from __future__ import annotations

import functools
from typing import Any

import gymnasium as gym
from ray.rllib.core.distribution.torch.torch_distribution import (
    TorchCategorical,
    TorchDiagGaussian,
    TorchMultiCategorical,
)

from rayprune.errors import ConfigError


def flat_size(space: gym.Space[Any] | None, module: str) -> int:
    """Return the length of a flat observation; ``module`` is the name that a fault says."""
    if not (isinstance(space, gym.spaces.Box) and len(space.shape) == 1):
        raise ConfigError(
            f"{module} takes flat Box observations, but the environment's are {space}. Flatten "
            "them with RLlib's FlattenObservations connector, or take a CNN for images."
        )
    return space.shape[0]


def image_shape(space: gym.Space[Any] | None, module: str) -> tuple[int, int, int]:
    """Return an image's ``(channels, height, width)``; RLlib's images have their channels last."""
    if not (isinstance(space, gym.spaces.Box) and len(space.shape) == 3):
        raise ConfigError(
            f"{module} takes images, Box(height, width, channels), but the environment's "
            f"observations are {space}. Take PrunableMLP for flat ones."
        )
    height, width, channels = space.shape
    return channels, height, width


def action_distribution(space: gym.Space[Any] | None, module: str) -> Any:
    """Return the RLlib distribution class for an action space."""
    if isinstance(space, gym.spaces.Discrete):
        return TorchCategorical
    if isinstance(space, gym.spaces.MultiDiscrete) and len(space.shape) == 1:
        return _multi_categorical(tuple(int(n) for n in space.nvec))
    if isinstance(space, gym.spaces.Box) and len(space.shape) == 1:
        return TorchDiagGaussian
    raise ConfigError(
        f"{module} takes Discrete, and one-dimensional MultiDiscrete and Box action spaces, but "
        f"the environment's is {space}."
    )


def distribution_inputs(space: gym.Space[Any] | None, module: str) -> int:
    """Return how many outputs of the policy net the distribution takes."""
    distribution = action_distribution(space, module)
    if isinstance(space, gym.spaces.MultiDiscrete):
        # The class that is bound to the choices wants to be told the very same space again.
        return int(TorchMultiCategorical.required_input_dim(space))
    return int(distribution.required_input_dim(space))


@functools.cache
def _multi_categorical(choices: tuple[int, ...]) -> Any:
    # Made on demand: a module that held this class, local to an RLlib function, wouldn't pickle.
    multi_categorical: Any = TorchMultiCategorical
    return multi_categorical.get_partial_dist_cls(input_lens=list(choices))
