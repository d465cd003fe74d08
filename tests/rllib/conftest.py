"""Tiny environments that only these tests use."""

from __future__ import annotations

from collections.abc import Iterator

import gymnasium as gym
import numpy as np
import pytest
from ray.tune.registry import register_env

from rayprune.pruning.criteria import CRITERIA
from rayprune.pruning.distributions import DISTRIBUTIONS
from rayprune.pruning.schedules import SCHEDULES


@pytest.fixture
def registries() -> Iterator[None]:
    """Forget what a test registers."""
    held = [CRITERIA, DISTRIBUTIONS, SCHEDULES]
    before = [dict(registry) for registry in held]
    yield
    for registry, entries in zip(held, before, strict=True):
        registry._entries = entries


class RandomEnv(gym.Env[np.ndarray, object]):
    """Random observations and rewards, ten steps an episode, in any spaces."""

    LENGTH = 10

    def __init__(self, config: dict[str, gym.Space]) -> None:
        self.observation_space = config["observation_space"]
        self.action_space = config["action_space"]

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action: object) -> tuple:
        assert self.action_space.contains(action)
        self.steps += 1
        reward = float(self.np_random.standard_normal())
        return self.observation_space.sample(), reward, self.steps >= self.LENGTH, False, {}


@pytest.fixture(scope="module", autouse=True)
def _environments() -> None:
    register_env("rayprune-random", RandomEnv)
