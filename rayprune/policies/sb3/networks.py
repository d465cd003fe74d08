"""The part of a Stable-Baselines3 policy that chooses actions, as one plain module."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor, nn

from rayprune.deploy.policy.actions import Aim
from rayprune.errors import InputError
from rayprune.policies.spaces import Space, nested


@dataclass(frozen=True, slots=True)
class ActingPart:
    """What chooses a policy's actions."""

    network: nn.Module
    """From an observation's leaves to logits, Q-values, means, or means and log-stds."""
    squashed: bool
    """Whether a tanh is between the distribution and the action."""
    bounded: bool
    """Whether actions lie in [-1, 1] and are scaled to their bounds, rather than clipped."""
    choose: nn.Module | None = None
    """What makes a continuous action of the network's outputs; None for choices."""


class ExtractorAndHead(nn.Module):
    """Features of an observation, hidden layers, and what is read off them.

    Args:
        space: of the observations, as the extractor nests them.
        extractor: of features.
        hidden: layers behind it.
        head: the last layer.
        log_std: a parameter or a layer that gives log-stds beside the head's means; None: no such.
    """

    def __init__(
        self,
        space: Space,
        extractor: nn.Module,
        hidden: nn.Module,
        head: nn.Module,
        log_std: nn.Module | nn.Parameter | None = None,
    ) -> None:
        super().__init__()
        self._space = space
        self.extractor, self.hidden, self.head = extractor, hidden, head
        self.log_std = log_std

    def forward(self, *leaves: Tensor) -> tuple[Tensor]:
        """Map preprocessed leaves to one tensor, batch first."""
        latent = self.hidden(self.extractor(nested(self._space, leaves)))
        outputs = self.head(latent)
        if self.log_std is None:
            return (outputs,)
        if isinstance(self.log_std, nn.Module):
            # Stable-Baselines3's own bounds: LOG_STD_MIN and LOG_STD_MAX of SAC's policy.
            spread = self.log_std(latent).clamp(-20.0, 2.0)
        else:
            spread = self.log_std.expand_as(outputs)
        return (torch.cat([outputs, spread], dim=-1),)


def acting_part(policy: Any, *, sample: bool) -> ActingPart:
    """Return what chooses the actions of a Stable-Baselines3 policy; its layers are shared.

    Args:
        policy: of PPO, A2C, SAC, TD3, DDPG or DQN.
        sample: keep what actions are drawn with.

    Raises:
        InputError: it is of another kind, or can't be sampled.
    """
    from stable_baselines3.common.policies import ActorCriticPolicy
    from stable_baselines3.dqn.policies import DQNPolicy
    from stable_baselines3.sac.policies import SACPolicy
    from stable_baselines3.td3.policies import TD3Policy

    if sample and (getattr(policy, "use_sde", False) or isinstance(policy, (DQNPolicy, TD3Policy))):
        raise InputError(
            "`--sample` draws from a policy's distribution, and this one has none for a single "
            "step (DQN, TD3, gSDE). Export it without."
        )
    if isinstance(policy, ActorCriticPolicy):
        return _actor_critic(policy, sample=sample)
    if isinstance(policy, SACPolicy):
        return _soft_actor(policy, sample=sample)
    if isinstance(policy, TD3Policy):
        network = ExtractorAndHead(
            policy.observation_space,
            policy.actor.features_extractor,
            policy.actor.mu,
            nn.Identity(),
        )
        return ActingPart(network, squashed=False, bounded=True, choose=nn.Identity())
    if isinstance(policy, DQNPolicy):
        q_net = policy.q_net
        network = ExtractorAndHead(
            policy.observation_space, q_net.features_extractor, q_net.q_net, nn.Identity()
        )
        return ActingPart(network, squashed=False, bounded=False)
    raise InputError(
        f"Policies of {type(policy).__name__} aren't known: those of Stable-Baselines3's PPO, A2C, "
        "SAC, TD3, DDPG and DQN are. Give the network that acts to `policy_of`, with its spaces."
    )


def _actor_critic(policy: Any, *, sample: bool) -> ActingPart:
    hidden = policy.mlp_extractor
    network = ExtractorAndHead(
        policy.observation_space,
        policy.pi_features_extractor,
        # A user's own extractor may have no such part, only the method.
        getattr(hidden, "policy_net", None) or _ForwardActor(hidden),
        policy.action_net,
        policy.log_std if sample and hasattr(policy, "log_std") else None,
    )
    continuous = isinstance(policy.action_space, gym.spaces.Box)
    choose = (Aim() if sample else nn.Identity()) if continuous else None
    squashed = continuous and bool(policy.squash_output)
    return ActingPart(network, squashed=squashed, bounded=squashed, choose=choose)


class _ForwardActor(nn.Module):
    def __init__(self, extractor: Any) -> None:
        super().__init__()
        self.extractor = extractor

    def forward(self, features: Tensor) -> Tensor:
        latent: Tensor = self.extractor.forward_actor(features)
        return latent


def _soft_actor(policy: Any, *, sample: bool) -> ActingPart:
    actor = policy.actor
    network = ExtractorAndHead(
        policy.observation_space,
        actor.features_extractor,
        actor.latent_pi,
        actor.mu,
        actor.log_std if sample else None,
    )
    choose = Aim() if sample else nn.Identity()
    return ActingPart(network, squashed=True, bounded=True, choose=choose)
