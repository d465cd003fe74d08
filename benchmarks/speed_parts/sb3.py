"""Stable-Baselines3 on the same works, its nets shaped as RLlib's are."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Final

import gymnasium as gym
import torch
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.policies import ContinuousCritic
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.sac.policies import SACPolicy
from torch import nn

from .works import BEFORE_LEARNING, CONV_FILTERS, CONV_HEAD, EPSILON, RATE, Work


def trained(work: Work, *, own_nets: bool = False) -> Callable[[], object]:
    """Build a work's model and fill its buffer; return a call that trains ``work.steps`` more.

    Args:
        work: what is trained.
        own_nets: SAC with the critic that the library ships, which is a third of RLlib's or less.
    """
    model = model_of(work, own_nets=own_nets)
    if work.replays:
        model.learn(BEFORE_LEARNING)

    def train() -> object:
        return model.learn(work.steps, reset_num_timesteps=False)

    return train


def model_of(work: Work, *, own_nets: bool = False) -> Any:
    """Build a work's model; see `trained`."""
    module, _, _ = work.env.rpartition(":")
    if module:
        importlib.import_module(module)
    envs = make_vec_env(work.env, work.envs, seed=0)
    with warnings.catch_warnings():
        # The last minibatch of an epoch is smaller; RLlib fills it from the next.
        warnings.filterwarnings("ignore", message="You have specified a mini-batch size")
        return _MODELS[work.algorithm](work, envs, own_nets)


def _ppo(work: Work, envs: Any, _: bool) -> Any:
    widths = list(work.model["fcnet_hiddens"])
    policy: dict[str, Any] = {
        "net_arch": {"pi": widths, "vf": widths},
        "activation_fn": nn.Tanh,
    }
    if "conv_filters" in work.model:
        policy = {
            "net_arch": {"pi": [CONV_HEAD], "vf": [CONV_HEAD]},
            "activation_fn": nn.ReLU,
            "features_extractor_class": Convolutions,
        }
    return PPO(
        "MlpPolicy",
        envs,
        learning_rate=RATE,
        n_steps=work.steps // work.envs,
        batch_size=work.minibatch,
        n_epochs=work.epochs,
        ent_coef=work.training.get("entropy_coeff", 0.0),
        policy_kwargs=policy,
        seed=0,
        device="cpu",
    )


def _dqn(work: Work, envs: Any, _: bool) -> Any:
    return DQN(
        "MlpPolicy",
        envs,
        learning_rate=RATE,
        batch_size=work.minibatch,
        learning_starts=BEFORE_LEARNING,
        train_freq=1,
        target_update_interval=500,
        exploration_initial_eps=EPSILON,
        exploration_final_eps=EPSILON,
        policy_kwargs={"net_arch": list(work.model["fcnet_hiddens"]), "activation_fn": nn.Tanh},
        seed=0,
        device="cpu",
    )


def _sac(work: Work, envs: Any, own_nets: bool) -> Any:
    widths = [*work.model["fcnet_hiddens"], *work.model.get("head_fcnet_hiddens", [])]
    policy: dict[str, Any] = {"net_arch": widths, "activation_fn": nn.Tanh}
    return SAC(
        SACPolicy if own_nets else StreamsPolicy,
        envs,
        learning_rate=RATE,
        batch_size=work.minibatch,
        learning_starts=BEFORE_LEARNING,
        policy_kwargs=policy if own_nets else {**policy, "model": work.model},
        seed=0,
        device="cpu",
    )


_MODELS: Final[Mapping[str, Callable[[Work, Any, bool], Any]]] = {
    "PPO": _ppo,
    "DQN": _dqn,
    "SAC": _sac,
}


class Convolutions(BaseFeaturesExtractor):
    """MinAtar's convolutions, over observations of shape (height, width, channels)."""

    def __init__(self, observation_space: gym.Space[Any]) -> None:
        height, width, channels = observation_space.shape or ()
        layers: list[nn.Module] = []
        for filters, kernel, stride in CONV_FILTERS:
            layers += [nn.Conv2d(channels, filters, kernel, stride, kernel // 2), nn.ReLU()]
            channels, height, width = filters, -(-height // stride), -(-width // stride)
        super().__init__(observation_space, channels * height * width)
        self.net = nn.Sequential(*layers, nn.Flatten())

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """Return features, shape ``(batch, features)``."""
        return self.net(observations.permute(0, 3, 1, 2))  # type: ignore[no-any-return]


class Streams(nn.Module):
    """A Q network as RLlib's SAC has it: observation and action apart, then joined.

    Args:
        features: readings of an observation.
        actions: numbers of an action.
        model: RLlib's ``model_config``.
    """

    def __init__(self, features: int, actions: int, model: Mapping[str, Any]) -> None:
        super().__init__()
        widths = model["fcnet_hiddens"]
        self.sizes = [features, actions]
        self.streams = nn.ModuleList(_tanh_mlp([size, *widths]) for size in self.sizes)
        joined, fused = 2 * widths[-1], [*model["fusionnet_hiddens"], widths[-1]]
        # Each layer sees what the first saw beside what the one before gave.
        inputs = [joined, *(width + joined for width in fused)]
        self.fusion = nn.ModuleList(
            nn.Linear(size, width) for size, width in zip(inputs, fused, strict=False)
        )
        hidden = [widths[-1], *model.get("head_fcnet_hiddens", [])]
        self.head = nn.Sequential(_tanh_mlp(hidden), nn.Linear(hidden[-1], 1))

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        """Return values, shape ``(batch, 1)``, of features and actions side by side."""
        parts = zip(self.streams, given.split(self.sizes, dim=1), strict=True)
        joined = torch.cat([stream(part) for stream, part in parts], dim=1)
        out = torch.tanh(self.fusion[0](joined))
        for layer in self.fusion[1:]:
            out = torch.tanh(layer(torch.cat([out, joined], dim=1)))
        return self.head(out)  # type: ignore[no-any-return]


class StreamsCritic(ContinuousCritic):
    """SB3's critic with RLlib's Q networks."""

    def __init__(self, model: Mapping[str, Any], **keywords: Any) -> None:
        super().__init__(**keywords)
        features, actions = keywords["features_dim"], get_action_dim(self.action_space)
        for i in range(self.n_critics):
            self.q_networks[i] = Streams(features, actions, model)
            setattr(self, f"qf{i}", self.q_networks[i])


class StreamsPolicy(SACPolicy):
    """SB3's SAC policy with RLlib's Q networks."""

    def __init__(self, *args: Any, model: Mapping[str, Any], **keywords: Any) -> None:
        self.model = model
        super().__init__(*args, **keywords)

    def make_critic(self, features_extractor: Any = None) -> ContinuousCritic:
        """Return the critic."""
        keywords = self._update_features_extractor(self.critic_kwargs, features_extractor)
        return StreamsCritic(self.model, **keywords).to(self.device)


def _tanh_mlp(sizes: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i in range(len(sizes) - 1):
        layers += [nn.Linear(sizes[i], sizes[i + 1]), nn.Tanh()]
    return nn.Sequential(*layers)
