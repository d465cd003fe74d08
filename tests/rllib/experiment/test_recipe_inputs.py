"""A recipe normalises readings alone: what the environment gives is looked at."""

from __future__ import annotations

from typing import Any

import pytest

from rayprune import yaml12
from rayprune.rllib.experiment.experiment_checks import load_checked

RUN = {
    "name": "a",
    "algorithm": "PPO",
    "stop": {"env_steps": 120_000},
    "pruning": {"recipe": "recommended", "sparsity": 0.9},
}


def checked(tmp_path: Any, **others: Any) -> Any:
    (tmp_path / "run.yaml").write_text(yaml12.dump({**RUN, **others}), encoding="utf-8")
    return load_checked(tmp_path / "run.yaml")


@pytest.mark.parametrize(
    ("env", "normalised"), [("FrozenLake-v1", False), ("CartPole-v1", True), ("Taxi-v3", False)]
)
def test_observations_are_normalised_where_there_is_a_reading(tmp_path, env, normalised):
    assert checked(tmp_path, env=env).normalise.observations is normalised


def test_rewards_that_the_user_asked_for_stay(tmp_path):
    held = checked(tmp_path, env="FrozenLake-v1", normalise={"rewards": True}).normalise
    assert (held.observations, held.rewards) == (False, True)


def test_images_are_left_alone(tmp_path, monkeypatch):
    import gymnasium as gym

    class Camera(gym.Env):
        observation_space = gym.spaces.Box(0, 255, (84, 84, 3), "uint8")
        action_space = gym.spaces.Discrete(2)

    monkeypatch.setitem(gym.registry, "Camera-v0", None)
    del gym.registry["Camera-v0"]
    gym.register("Camera-v0", Camera)
    assert not checked(tmp_path, env="Camera-v0").normalise.observations


def test_a_fault_of_the_environment_is_told_once(tmp_path):
    with pytest.raises(ValueError, match="unknown") as error:
        checked(tmp_path, env="FrozenLak-v1")
    assert len(error.value.faults) == 1
