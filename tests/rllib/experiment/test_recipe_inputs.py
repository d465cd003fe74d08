"""A recipe normalises readings alone: what the environment gives is looked at."""

from __future__ import annotations

from typing import Any

import pytest

from rayprune import yaml12
from rayprune.errors import ConfigError
from rayprune.rllib.experiment.algorithm_config import base_config
from rayprune.rllib.experiment.experiment_checks import load_checked
from rayprune.rllib.training.failures import build

RUN = {
    "name": "a",
    "algorithm": "PPO",
    "stop": {"env_steps": 120_000},
    "pruning": {"recipe": "recommended", "sparsity": 0.9},
}

SMALL = {
    "env_runners": {"num_env_runners": 0},
    "learners": {"num_learners": 0},
    "rl_module": {"model_config": {"fcnet_hiddens": [8]}},
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


def test_an_environment_that_cannot_be_closed_is_a_fault(tmp_path, monkeypatch):
    import gymnasium as gym

    class Stuck(gym.Env):
        observation_space = gym.spaces.Box(-1, 1, (4,))
        action_space = gym.spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            return self.observation_space.sample(), {}

        def close(self):
            raise OSError("the window is gone")

    monkeypatch.setitem(gym.registry, "Stuck-v0", gym.envs.registration.EnvSpec("Stuck-v0", Stuck))
    with pytest.raises(ConfigError, match="OSError: the window is gone"):
        checked(tmp_path, env="Stuck-v0")


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


@pytest.fixture(scope="module")
def policies(tmp_path_factory):
    """Checkpoints of an untrained policy that saw observations normalised, and of one that not."""
    held = {}
    for normalised in (True, False):
        root = tmp_path_factory.mktemp("policy")
        blocks = {"env": "CartPole-v1", "rllib": SMALL, "normalise": {"observations": normalised}}
        algorithm = build(base_config(checked(root, **blocks)))
        held[normalised] = algorithm.save_to_path(str(root / "checkpoint"))
        algorithm.stop()
    return held


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("field", ["start_from", "teacher"])
def test_a_policy_goes_on_with_the_inputs_that_it_learnt_from(
    tmp_path, policies, field, normalised
):
    policy = policies[normalised]
    teacher = {"pruning": {**RUN["pruning"], "distillation": {"from": policy}}}
    blocks = teacher if field == "teacher" else {"start_from": policy}
    assert checked(tmp_path, env="CartPole-v1", **blocks).normalise.observations is normalised


def test_what_the_user_says_of_a_policys_inputs_stays(tmp_path, policies):
    given = {"start_from": policies[True], "normalise": {"observations": False}}
    assert not checked(tmp_path, env="CartPole-v1", **given).normalise.observations


def test_a_policy_that_isnt_there_is_told_once(tmp_path):
    with pytest.raises(ValueError, match="start_from") as error:
        checked(tmp_path, env="CartPole-v1", start_from=str(tmp_path / "none"))
    assert len(error.value.faults) == 1
