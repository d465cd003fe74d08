"""A Stable-Baselines3 policy, read from its zip, acts as its ``predict`` does."""

from __future__ import annotations

import pickle

import gymnasium as gym
import numpy as np
import pytest
import torch

from rayprune.errors import CheckpointError, InputError
from rayprune.policies import load_sb3, policy_of
from rayprune.policies.sb3.normalisation import beside, load_normalisation

KINDS = [
    ("PPO", "CartPole-v1", {}),
    ("A2C", "Pendulum-v1", {"policy_kwargs": {"activation_fn": torch.nn.ReLU, "net_arch": [8]}}),
    ("PPO", "Pendulum-v1", {"use_sde": True, "policy_kwargs": {"squash_output": True}}),
    ("SAC", "Pendulum-v1", {"policy_kwargs": {"net_arch": [16, 16]}}),
    ("SAC", "Pendulum-v1", {"use_sde": True}),
    ("TD3", "Pendulum-v1", {"policy_kwargs": {"net_arch": [16]}}),
    ("DQN", "CartPole-v1", {}),
]


def drawn(space, count=1000):
    space.seed(0)
    return np.clip(np.stack([space.sample() for _ in range(count)]), -10, 10)


@pytest.mark.parametrize(("name", "env", "keywords"), KINDS)
def test_a_zips_policy_acts_as_predict_does(model, tmp_path, name, env, keywords):
    trained = model(name, env, **keywords)
    trained.save(tmp_path / "policy")
    policy = policy_of(load_sb3(tmp_path / "policy.zip"))
    seen = drawn(trained.observation_space)
    expected, _ = trained.predict(seen, deterministic=True)
    action, _ = policy(torch.from_numpy(seen))
    assert np.array_equal(action.detach().numpy(), expected)


def test_an_image_of_the_environments_own_order_is_turned_as_sb3_turns_it(sb3, tmp_path):
    from stable_baselines3.common.envs import FakeImageEnv

    env = FakeImageEnv(screen_height=36, screen_width=36, n_channels=3, channel_first=False)
    model = sb3.PPO("CnnPolicy", env, n_steps=8, batch_size=8, seed=0)
    model.save(tmp_path / "policy")
    policy = policy_of(load_sb3(tmp_path / "policy.zip"), env.observation_space)
    seen = np.stack([env.observation_space.sample() for _ in range(4)])
    assert policy.interface.observations[0].shape == (36, 36, 3)
    expected, _ = model.predict(seen, deterministic=True)
    assert np.array_equal(policy(torch.from_numpy(seen))[0].numpy(), expected)


def test_statistics_beside_a_zip_are_those_of_vecnormalize(sb3, model, tmp_path):
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

    vector = VecNormalize(DummyVecEnv([lambda: gym.make("Pendulum-v1")]), clip_obs=2.0)
    vector.reset()
    for _ in range(20):
        vector.step(np.zeros((1, 1), np.float32))
    trained = model("PPO", vector)
    trained.save(tmp_path / "policy")
    vector.save(tmp_path / "policy_vecnormalize.pkl")
    held = load_normalisation(beside(tmp_path / "policy.zip"))
    policy = policy_of(trained, normalise=held.statistics, clip=held.clip)
    seen = drawn(trained.observation_space)
    expected, _ = trained.predict(vector.normalize_obs(seen), deterministic=True)
    assert np.allclose(held.apply(seen), vector.normalize_obs(seen), atol=1e-7)
    assert np.allclose(policy(torch.from_numpy(seen))[0].detach().numpy(), expected, atol=1e-5)


class Camera(gym.Env):
    """An image beside a reading."""

    observation_space = gym.spaces.Dict(
        camera=gym.spaces.Box(0, 255, (36, 36, 3), np.uint8), place=gym.spaces.Box(-9, 9, (2,))
    )
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        return self.observation_space.sample(), {}


@pytest.mark.parametrize("keys", [["place"], ["camera", "place"]])
def test_a_reading_beside_an_image_is_normalised_and_an_image_never(sb3, keys):
    few = {"n_steps": 8, "batch_size": 8, "seed": 0, "device": "cpu"}
    model, space = sb3.PPO("MultiInputPolicy", Camera(), **few), Camera.observation_space
    given = {key: (np.full(space[key].shape, 2.0), np.full(space[key].shape, 3.0)) for key in keys}
    if "camera" in keys:
        with pytest.raises(InputError, match="Images that VecNormalize normalises"):
            policy_of(model, space, normalise=given)
        return
    policy = policy_of(model, space, normalise=given)
    seen = {key: np.stack([space[key].sample() for _ in range(3)]) for key in space}
    scaled = {**seen, "place": ((seen["place"] - 2) / 3).astype(np.float32)}
    expected, _ = model.predict(scaled, deterministic=True)
    action, _ = policy(*(torch.from_numpy(seen[key]) for key in sorted(seen)))
    assert np.array_equal(action.numpy(), expected)


@pytest.mark.parametrize(
    ("zipped", "statistics"),
    [
        ("ppo.zip", "ppo_vecnormalize.pkl"),
        ("rl_model_500_steps.zip", "rl_model_vecnormalize_500_steps.pkl"),
        ("CartPole-v1.zip", "CartPole-v1/vecnormalize.pkl"),
        ("best_model.zip", "vec_normalize.pkl"),
        ("rl_model_500_steps.zip", None),
    ],
)
def test_statistics_are_found_where_sb3_and_its_zoo_put_them(tmp_path, zipped, statistics):
    other = tmp_path / "rl_model_vecnormalize_400_steps.pkl"
    wanted = None if statistics is None else tmp_path / statistics
    for file in filter(None, (other, wanted)):
        file.parent.mkdir(exist_ok=True)
        file.touch()
    assert beside(tmp_path / zipped) == wanted


def test_statistics_that_lack_something_are_told(tmp_path):
    from stable_baselines3.common.vec_env import VecNormalize

    broken = VecNormalize.__new__(VecNormalize)
    broken.__dict__.update(norm_obs=True, venv=None, class_attributes={}, returns=0)
    (tmp_path / "s.pkl").write_bytes(pickle.dumps(broken))
    with pytest.raises(CheckpointError, match="lacks what VecNormalize normalises by: 'clip_obs'"):
        load_normalisation(tmp_path / "s.pkl")


def test_draws_are_of_the_policys_own_distribution(model):
    trained = model("SAC", "Pendulum-v1")
    policy = policy_of(trained, sample=True)
    seen = torch.from_numpy(drawn(trained.observation_space, 8))
    noise = torch.zeros(8, 1)
    expected, _ = trained.predict(seen.numpy(), deterministic=True)
    assert policy.interface.noise_kind == "normal"
    assert np.allclose(policy(seen, noise)[0].detach().numpy(), expected, atol=1e-6)
    with pytest.raises(InputError, match="has none for a single step"):
        policy_of(model("TD3", "Pendulum-v1"), sample=True)


def test_another_environments_observations_are_refused_with_both_spaces(model):
    trained = model("PPO", "CartPole-v1")
    with pytest.raises(InputError, match=r"is Box.*\(3,\).*but the policy observes Box.*\(4,\)"):
        policy_of(trained, gym.spaces.Box(-1, 1, (3,)))


def test_other_choices_than_it_has_learnt_are_refused(model):
    trained = model("PPO", "FrozenLake-v1")
    with pytest.raises(InputError, match=r"is Discrete\(25\).*but the policy observes Discrete"):
        policy_of(trained, gym.spaces.Discrete(25))


@pytest.mark.parametrize(
    "said", [{"squash": True}, {"action_space": gym.spaces.Discrete(3)}], ids=str
)
def test_what_a_policy_says_itself_is_not_taken_from_elsewhere(model, said):
    with pytest.raises(InputError, match=r"knows its actions, which are Discrete\(2\)"):
        policy_of(model("PPO", "CartPole-v1"), **said)
