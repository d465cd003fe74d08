"""A Stable-Baselines3 policy as one plain module, which acts as its ``predict`` does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from torch import Tensor, nn

from rayprune.deploy.policy.policy import Arrange, DeployablePolicy, Flatten, Observe
from rayprune.errors import InputError
from rayprune.policies.assembly import Statistics, assembled, decision, normalising
from rayprune.policies.sb3.networks import acting_part
from rayprune.policies.spaces import Path, Space, leaves, port_name


def sb3_policy(
    policy: Any,
    observation_space: Space | None,
    *,
    sample: bool,
    normalise: Mapping[str | None, Statistics],
    clip: float | None,
) -> DeployablePolicy:
    """Return a Stable-Baselines3 policy as `rayprune.policies.policy_of` gives it.

    Args:
        policy: a policy, or a model that has one.
        observation_space: the environment's, where images have their channels last; None for the
            policy's own.
        sample: draw actions with noise that is given.
        normalise: VecNormalize's statistics, by key of a Dict observation or None.
        clip: what VecNormalize clips to.

    Raises:
        InputError: another kind of policy, or spaces that don't fit.
    """
    policy = getattr(policy, "policy", policy)
    space = policy.observation_space if observation_space is None else observation_space
    part = acting_part(policy, sample=sample)
    stages = normalising(space, normalise, clip)
    images = [path for path, leaf in leaves(space) if _is_image(leaf)]
    if any((path[0] if path else None) in normalise for path in images):
        raise InputError(
            "Images that VecNormalize normalises can't be exported: its networks scale them "
            "anyway. Train with `norm_obs_keys` of the other keys, or without VecNormalize."
        )
    own = dict(leaves(policy.observation_space))
    readers = [_reader(path, leaf, own.get(path), policy) for path, leaf in leaves(space)]
    decide = decision(
        policy.action_space, part.choose, squashed=part.squashed, bounded=part.bounded
    )
    observe = Observe([*stages, EachLeaf(readers)])
    return assembled(observe, part.network, decide, space, policy.action_space, sample)


class EachLeaf(nn.Module):
    """Readers of an observation's leaves, each of one leaf, from and to a tuple."""

    def __init__(self, readers: list[nn.Module]) -> None:
        super().__init__()
        self.readers = nn.ModuleList(readers)

    def forward(self, *observation: Tensor) -> tuple[Tensor, ...]:
        """Map each leaf to what the extractor of features takes."""
        pairs = zip(self.readers, observation, strict=True)
        return tuple(reader(leaf)[0] for reader, leaf in pairs)


def _reader(path: Path, leaf: Space, own: Space | None, policy: Any) -> nn.Module:
    """Return what does to a leaf what Stable-Baselines3's ``preprocess_obs`` does."""
    if own is None or type(leaf) is not type(own) or sorted(_shape(leaf)) != sorted(_shape(own)):
        raise _misfit(path, leaf, own)
    sizes = _sizes(own)
    if sizes is not None:
        if leaf != own:
            raise _misfit(path, leaf, own)
        return Flatten([sizes])
    if _is_image(leaf) and np.dtype(own.dtype).kind == "f":
        # Bytes where it has learnt from what a wrapper, or VecNormalize, has made of them.
        raise _misfit(path, leaf, own)
    axes = list(range(len(_shape(leaf))))
    if _shape(leaf) != _shape(own):
        axes = [2, 0, 1]
        if len(_shape(leaf)) != 3 or tuple(_shape(leaf)[i] for i in axes) != _shape(own):
            raise _misfit(path, leaf, own)
    scaled = policy.normalize_images and _is_image(own)
    return Arrange(axes, list(_shape(own)), 255.0 if scaled else None)


def _sizes(space: Space) -> list[int] | None:
    """Return the numbers of choices of each entry; None for what holds no choices."""
    if isinstance(space, gym.spaces.Discrete):
        return [int(space.n)]
    if isinstance(space, gym.spaces.MultiDiscrete):
        return [int(size) for size in space.nvec.reshape(-1)]
    return None


def _shape(space: Space) -> tuple[int, ...]:
    return tuple(space.shape or ())


def _is_image(space: Space) -> bool:
    from stable_baselines3.common.preprocessing import is_image_space

    return bool(is_image_space(space)) and np.dtype(space.dtype).kind == "u"


def _misfit(path: Path, leaf: Space, own: Space | None) -> InputError:
    return InputError(
        f"`{port_name(path)}` is {leaf} in the environment, but the policy observes "
        f"{'nothing of that name' if own is None else own}. Give the environment that it was "
        "trained in, with its wrappers; stacked frames come from a wrapper."
    )
