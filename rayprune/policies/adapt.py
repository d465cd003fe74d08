"""`policy_of`: any torch module that acts, as what `rayprune.deploy` exports and proves."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor, nn

from rayprune.deploy.policy.actions import Aim
from rayprune.deploy.policy.policy import DeployablePolicy, Observe
from rayprune.errors import InputError
from rayprune.policies.assembly import Statistics, assembled, decision, normalising
from rayprune.policies.sb3.policy import sb3_policy
from rayprune.policies.spaces import Space, nested


def policy_of(
    module: Any,
    observation_space: Space | None = None,
    action_space: Space | None = None,
    *,
    squash: bool = False,
    sample: bool = False,
    normalise: Statistics | Mapping[str | None, Statistics] | None = None,
    clip: float | None = 10.0,
) -> DeployablePolicy:
    """Return a torch module that acts as one policy: raw observation in, action out.

    What comes back is a plain module: `rayprune.deploy.export_policy` writes it to a file,
    `rayprune.deploy.compact` makes it smaller. Its layers are ``module``'s own, not copies, on
    their own device; they are put into eval mode, so a loop that goes on calls ``train()``.

    Args:
        module: either a policy of Stable-Baselines3 (``model.policy``, or the model), which knows
            its spaces; or any `torch.nn.Module` that maps a batch of observations, nested as the
            space nests them, to logits or Q-values of discrete choices, or to a continuous action,
            shape ``(batch, size)``. Floats reach it as float32, whole numbers as they are; of
            several outputs the first counts.
        observation_space: the environment's; a gymnasium space.
        action_space: likewise: Discrete, MultiDiscrete, or a float Box.
        squash: continuous actions go through tanh and are scaled to their bounds; else they are
            clipped to them.
        sample: actions are drawn with noise that is an input. A module of one's own then gives
            means and log-stds, shape ``(batch, 2 * size)``.
        normalise: mean and standard deviation of the observation, or of each key of a Dict (of a
            nested one ``"arm.angles"``), that it is centred and scaled by first.
        clip: the largest magnitude that a normalised observation keeps, None for no bound.

    Raises:
        InputError: a space is missing or can't be exported, the module gives something else, or
            what is given says nothing of such a module.

    >>> net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    >>> policy = policy_of(net, gym.spaces.Box(-1, 1, (4,)), gym.spaces.Discrete(2))
    >>> action, logits = policy(torch.zeros(3, 4))
    >>> action.shape, logits.shape
    (torch.Size([3]), torch.Size([3, 2]))
    """
    if clip is not None and not clip > 0:
        raise InputError(f"`clip` must be above 0, or None for no bound, but is {clip!r}.")
    if _is_sb3(module):
        _check_said_by_itself(module, action_space, squash=squash)
        return sb3_policy(
            module, observation_space, sample=sample, normalise=_by_key(normalise), clip=clip
        )
    if not isinstance(module, nn.Module) or isinstance(module, torch.jit.ScriptModule):
        raise InputError(
            f"`policy_of` takes a torch.nn.Module, but got a {type(module).__name__}. Of a "
            "TorchScript or exported program the layers can't be pruned: give the module itself."
        )
    if observation_space is None or action_space is None:
        raise InputError(
            "`policy_of` needs `observation_space` and `action_space` of a module of your own: "
            "give the environment's."
        )
    choose = None
    if isinstance(action_space, gym.spaces.Box):
        choose = Aim() if sample else nn.Identity()
    elif squash:
        raise InputError(
            f"`squash` is for continuous actions, of a float Box, but those are of {action_space}. "
            "Leave it out."
        )
    network = NestedModule(module.eval(), observation_space)
    stages = normalising(observation_space, _by_key(normalise), clip)
    decide = decision(action_space, choose, squashed=squash, bounded=squash)
    return assembled(Observe(stages), network, decide, observation_space, action_space, sample)


class NestedModule(nn.Module):
    """A module of one's own, given an observation as its space nests it."""

    def __init__(self, module: nn.Module, space: Space) -> None:
        super().__init__()
        self.module = module
        self._space = space

    def forward(self, *observation: Tensor) -> tuple[Tensor]:
        """Map an observation's leaves to the first of the module's outputs."""
        outputs = self.module(nested(self._space, observation))
        return (outputs[0] if isinstance(outputs, (tuple, list)) else outputs,)


def _check_said_by_itself(module: Any, action_space: Space | None, *, squash: bool) -> None:
    """Refuse what a policy of Stable-Baselines3 says of itself, and otherwise."""
    held = module.action_space
    if squash or (action_space is not None and action_space != held):
        given = "squash=True" if squash else f"`action_space` {action_space}"
        raise InputError(
            f"A policy of Stable-Baselines3 knows its actions, which are {held}, and whether they "
            f"are squashed: leave {given} out."
        )


def _by_key(
    statistics: Statistics | Mapping[str | None, Statistics] | None,
) -> Mapping[str | None, Statistics]:
    if statistics is None:
        return {}
    return statistics if isinstance(statistics, Mapping) else {None: statistics}


def _is_sb3(module: Any) -> bool:
    """Whether it is a model or a policy of Stable-Baselines3; imports nothing."""
    kinds = {"base_class": "BaseAlgorithm", "policies": "BasePolicy"}
    loaded = {name: sys.modules.get(f"stable_baselines3.common.{name}") for name in kinds}
    return any(
        isinstance(module, getattr(loaded[name], kind))
        for name, kind in kinds.items()
        if loaded[name] is not None
    )
