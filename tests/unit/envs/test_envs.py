"""The environments keep gymnasium's rules, and are what they say."""

from __future__ import annotations

import importlib.util

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import rayprune.envs  # noqa: F401 - registers them
from rayprune.envs.path_planning import STEP, PathPlanning
from rayprune.envs.recall import Recall
from rayprune.envs.trading import Trading

OURS = ("Recall-v0", "LongPole-v0", "PathPlanning-v0", "Trading-v0")


@pytest.mark.parametrize("name", OURS)
def test_gymnasium_finds_no_fault(name):
    check_env(gym.make(name).unwrapped, skip_render_check=True)


@pytest.mark.parametrize("name", OURS)
def test_a_seed_gives_the_same_episode(name):
    def play():
        env = gym.make(f"rayprune.envs:{name}")
        seen = [gym.spaces.flatten(env.observation_space, env.reset(seed=3)[0])]
        for action in [0, 1] * 8:
            obs, reward, over, *_ = env.step(action)
            seen.append(np.append(gym.spaces.flatten(env.observation_space, obs), reward))
            if over:
                break
        return np.concatenate(seen)

    assert np.array_equal(play(), play())


def answers(env, policy):
    obs, _ = env.reset(seed=0)
    total, over = 0.0, False
    while not over:
        obs, reward, over, _, _ = env.step(policy(obs))
        total += reward
    return total


def test_who_remembers_the_cue_earns_every_round_and_who_does_not_earns_chance():
    held = [0]

    def remembers(obs):
        if obs[:-1].any():
            held[0] = int(obs[:-1].argmax())
        return held[0]

    assert answers(Recall(cues=4, delay=6, rounds=8), remembers) == 8
    forgetful = [answers(Recall(rounds=400), lambda obs: 1)]
    assert forgetful[0] == pytest.approx(100, abs=30)


def test_a_round_worked_by_hand():
    env = Recall(cues=2, delay=1, rounds=1)
    first, _ = env.reset(seed=0)
    cue = int(first[:2].argmax())
    assert first.tolist() == [float(cue == 0), float(cue == 1), 0.0]
    nothing, reward, over, *_ = env.step(cue)
    assert (nothing.tolist(), reward, over) == ([0.0, 0.0, 0.0], 0.0, False)
    asked, reward, over, *_ = env.step(1 - cue)
    assert (asked.tolist(), reward, over) == ([0.0, 0.0, 1.0], 0.0, False)
    _, reward, over, *_ = env.step(cue)
    assert (reward, over) == (1.0, True)


def test_a_pole_of_cartpoles_length_is_cartpole_and_a_longer_one_falls_slower():
    def angle(name, **keywords):
        env = gym.make(name, **keywords)
        env.reset(seed=1)
        for _ in range(8):
            obs, *_ = env.step(1)
        return obs

    assert np.allclose(angle("CartPole-v1"), angle("LongPole-v0", length=0.5))
    assert abs(angle("LongPole-v0", length=2.0)[2]) < abs(angle("CartPole-v1")[2])


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="length > 0"):
        gym.make("LongPole-v0", length=0)
    with pytest.raises(ValueError, match="cues >= 2"):
        gym.make("Recall-v0", cues=1)


def test_minatars_breakout_keeps_the_rules_and_its_seed():
    pytest.importorskip("minatar")
    env = gym.make("MinBreakout-v0").unwrapped
    assert env.observation_space.dtype == np.float32
    runs = []
    for _ in range(2):
        frames = [env.reset(seed=5)[0]]
        rng = np.random.default_rng(0)
        for _ in range(30):
            obs, _, over, *_ = env.step(int(rng.integers(3)))
            assert env.observation_space.contains(obs)
            frames.append(obs)
            if over:
                break
        runs.append(np.stack(frames))
    assert np.array_equal(*runs)


def test_a_field_without_anything_near_is_all_free_ahead_and_the_goal_is_where_it_is():
    env = PathPlanning(obstacles=1, rays=4)
    env.reset(seed=0)
    env._centres, env._radii = np.array([[0.5, 0.8]]), np.array([0.1])
    env._place, env._goal, env._heading = np.array([0.5, 0.5]), np.array([0.8, 0.5]), 0.0
    seen, reward, over, *_ = env.step(1)
    # Ahead, left, behind, right: the obstacle's edge is 0.2 above 0.5, a little before us.
    assert seen["lidar"][[0, 2, 3]] == pytest.approx([0.92, 1.0, 1.0])
    assert 0.4 < seen["lidar"][1] < 0.45
    assert seen["state"] == pytest.approx([1.0, 0.0, 0.3 - STEP], abs=1e-6)
    assert (round(reward, 6), over, seen["camera"].any()) == (STEP, False, False)


def test_a_robot_that_hits_loses_and_one_that_arrives_wins():
    env = PathPlanning(obstacles=1)
    env.reset(seed=0)
    env._centres, env._radii = np.array([[0.5, 0.5]]), np.array([0.1])
    env._goal, env._heading = np.array([0.2, 0.2]), 0.0
    env._place = np.array([0.37, 0.5])
    seen, reward, over, *_ = env.step(1)
    assert (reward < -0.9, over, bool(seen["camera"].any())) == (True, True, True)
    env._place, env._heading = np.array([0.2 - STEP, 0.2]), 0.0
    _, reward, over, _, info = env.step(1)
    assert (round(reward, 6), over, info["reached"]) == (1 + STEP, True, True)


def test_a_position_earns_the_next_return_and_pays_for_changes_only():
    env = Trading(window=2, steps=3, cost=0.5)
    env.reset(seed=0)
    env._returns = np.array([0.0, 0.0, 0.01, 0.02, -0.03])
    rewards = [env.step(action)[1] for action in (2, 2, 0)]
    # Bought; held; turned around, which is two units.
    assert rewards == pytest.approx([1 - 50, 2, 3 - 100])
    assert env._see()["account"].tolist() == [-1.0, 0.0]


@pytest.mark.parametrize(("module", "name"), [("minigrid", "MiniGrid-v0"), ("ale_py", "Atari-v0")])
def test_other_projects_games_give_what_their_spaces_say_or_name_their_extra(module, name):
    if importlib.util.find_spec(module) is None:
        with pytest.raises(ImportError, match=r"pip install 'rayprune\["):
            gym.make(name)
        pytest.skip(f"{module} is not installed")
    env = gym.make(name)
    seen, _ = env.reset(seed=0)
    assert env.observation_space.contains(seen)
    assert 0 < seen.max() <= 1
