"""Policies of Stable-Baselines3 with new weights: what is tested here needs no training."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest


@pytest.fixture(scope="session")
def sb3() -> Any:
    return pytest.importorskip("stable_baselines3", reason="needs rayprune[sb3]")


@pytest.fixture(scope="session")
def model(sb3: Any) -> Any:
    """Make a model by its algorithm's name."""

    def made(name: str, env: str, **keywords: Any) -> Any:
        few = {"buffer_size": 100} if name in ("SAC", "TD3", "DQN") else {"n_steps": 8}
        few |= {"batch_size": 8} if name == "PPO" else {}
        return getattr(sb3, name)("MlpPolicy", env, seed=0, device="cpu", **few, **keywords)

    return made


def observations(space: Any, count: int = 1000) -> np.ndarray:
    """Draw observations, some of them far out."""
    space.seed(0)
    drawn = np.stack([space.sample() for _ in range(count)])
    return np.clip(drawn, -10, 10) if drawn.dtype.kind == "f" else drawn
