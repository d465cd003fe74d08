"""Small environments and modules for the tests."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis import ValueFunctionAPI
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import nn


class Images(gym.Env[np.ndarray, int]):
    """42x42 noise whose brighter half says which of two actions is rewarded."""

    observation_space = gym.spaces.Box(0.0, 1.0, (42, 42, 1), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, config: dict[str, Any] | None = None) -> None:
        self._left = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self._left = 8
        return self._see(), {}

    def step(self, action: int) -> Any:
        reward = float(action == self._bright)
        self._left -= 1
        return self._see(), reward, self._left == 0, False, {}

    def _see(self) -> np.ndarray:
        self._bright = int(self.np_random.integers(2))
        picture = self.np_random.random((42, 42, 1), dtype=np.float32) * 0.5
        picture[:, 21 * self._bright : 21 * (self._bright + 1)] += 0.5
        return picture


class OwnModule(TorchRLModule, ValueFunctionAPI):
    """A user's own module: nothing of rayprune's, names of its own."""

    def setup(self) -> None:
        size = self.observation_space.shape[0]
        self.policy_body = nn.Sequential(nn.Linear(size, 24), nn.Tanh(), nn.Linear(24, 24))
        self.policy_head = nn.Linear(24, self.action_space.n)
        self.critic = nn.Sequential(nn.Linear(size, 16), nn.Tanh(), nn.Linear(16, 1))

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        features = torch.tanh(self.policy_body(batch[Columns.OBS]))
        return {Columns.ACTION_DIST_INPUTS: self.policy_head(features)}

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> torch.Tensor:
        return self.critic(batch[Columns.OBS]).squeeze(-1)
