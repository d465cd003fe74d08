"""EnvPool's engines do as gymnasium's plain environments do, step by step from equal states."""

from __future__ import annotations

import contextlib
import importlib
import math
import sys
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv, VectorEnv

from rayprune.envs.envpool import NAMES, PREFIX, EnvPool

pytest.importorskip("envpool")
with contextlib.suppress(ImportError), warnings.catch_warnings():
    # SWIG's modules warn while they are made, and crash where that is raised.
    warnings.simplefilter("ignore")
    importlib.import_module("Box2D")

CLIPPED = ("Hopper", "Walker2d")
"""Whose observations cut velocities off at 10: beyond, they don't tell the state."""
DRAWN = "LunarLander-v3"
"""Its ground, and how an engine's thrust scatters, are drawn: no observation tells them."""
UNSEEN = {"Hopper": 1, "Walker2d": 1, "HalfCheetah": 1, "Swimmer": 2}
"""Leading coordinates, of where the body is, which aren't observed and change nothing."""


def made(name: str, num_envs: int = 2, **settings: Any) -> Any:
    mode = gym.VectorizeMode.VECTOR_ENTRY_POINT
    return gym.make_vec(PREFIX + name, num_envs, vectorization_mode=mode, **settings)


def plain(name: str) -> Any:
    try:
        return gym.make(PREFIX + name)
    except gym.error.DependencyNotInstalled:
        pytest.skip("its engine isn't installed")


def put(env: Any, name: str, seen: np.ndarray) -> None:
    """Bring a plain environment to the state that was observed."""
    inner, seen = env.unwrapped, np.asarray(seen, np.float64)
    if name.startswith(("CartPole", "MountainCar")):
        inner.state = seen
    elif name.startswith("Pendulum"):
        inner.state = np.array([math.atan2(seen[1], seen[0]), seen[2]])
    elif name.startswith("Acrobot"):
        inner.state = np.array([angle(seen[:2]), angle(seen[2:4]), *seen[4:]])
    else:
        inner.set_state(*coordinates(name, seen, inner.model.nq, inner.model.nv))


def angle(cosine_and_sine: np.ndarray) -> float:
    return math.atan2(cosine_and_sine[1], cosine_and_sine[0])


def coordinates(name: str, seen: np.ndarray, nq: int, nv: int) -> tuple[np.ndarray, np.ndarray]:
    if name.startswith("InvertedDouble"):
        return np.array([seen[0], angle(seen[[3, 1]]), angle(seen[[4, 2]])]), seen[5:8]
    if name.startswith("Reacher"):
        return np.array([angle(seen[[0, 2]]), angle(seen[[1, 3]]), *seen[4:6]]), np.array(
            [*seen[6:8], 0.0, 0.0]
        )
    unseen = UNSEEN.get(name.partition("-")[0], 0)
    held = np.concatenate([np.zeros(unseen), seen])
    return held[:nq], held[nq : nq + nv]


def drawn(space: gym.Space[Any], generator: np.random.Generator, num_envs: int) -> np.ndarray:
    if isinstance(space, gym.spaces.Box):
        return generator.uniform(space.low, space.high, (num_envs, *space.shape)).astype(np.float32)
    return generator.integers(space.n, size=num_envs)


@pytest.mark.parametrize("name", [name for name in NAMES if name != DRAWN])
def test_a_pool_gives_what_the_plain_environment_gives_from_the_same_state(name: str) -> None:
    one, pool, generator = plain(name), made(name), np.random.default_rng(0)
    seen, _ = pool.reset(seed=3)
    over, compared = np.zeros(2, bool), 0
    for _ in range(200):
        actions = drawn(pool.single_action_space, generator, 2)
        before, began = seen, over
        seen, rewards, failed, cut, _ = pool.step(actions)
        over = failed | cut
        if began[0]:
            assert (rewards[0], failed[0], cut[0]) == (0.0, False, False)
        elif not (name.startswith(CLIPPED) and (np.abs(before[0]) >= 10).any()):
            one.reset(seed=0)
            put(one, name, before[0])
            expected, reward, ended, *_ = one.step(actions[0])
            np.testing.assert_allclose(seen[0], expected, rtol=1e-6, atol=1e-6)
            assert rewards[0] == pytest.approx(float(reward), rel=1e-6, abs=1e-6)
            assert failed[0] == ended
            compared += 1
    assert compared > 30


class Pushed:
    """A lander's generator that draws flat ground, no scatter, and a given first push.

    Args:
        push: force at the start, x and y.
    """

    def __init__(self, *push: float) -> None:
        self._left = list(push)

    def uniform(self, low: float, high: float, size: int | None = None) -> Any:
        if size is not None:
            return np.zeros(size)
        return self._left.pop(0) if high == INITIAL_PUSH and self._left else 0.0


INITIAL_PUSH = 1000.0


def lander(*push: float) -> tuple[Any, np.ndarray]:
    env = plain(DRAWN)
    env.reset(seed=0)
    env.unwrapped.np_random = Pushed(*push)
    return env, np.asarray(env.reset()[0], np.float64)


def test_a_lander_falls_as_the_plain_one_until_it_touches_the_ground() -> None:
    pool = made(DRAWN, 1)
    seen, _ = pool.reset(seed=0)
    still, *pushed = [lander(*push)[1][2:4] for push in ((0, 0), (500, 0), (0, 500))]
    per_newton = np.stack([(speed - still) / 500 for speed in pushed], axis=1)
    one, expected = lander(*np.linalg.solve(per_newton, seen[0, 2:4] - still))
    compared = 0
    while not (seen[0, 6:].any() or expected[6:].any()):
        np.testing.assert_allclose(seen[0], expected, atol=1e-4)
        seen, rewards, failed, _, _ = pool.step(np.zeros(1, int))
        expected, reward, ended, *_ = one.step(0)
        compared += 1
        if failed[0] or ended or seen[0, 6:].any():
            break
        assert rewards[0] == pytest.approx(float(reward), abs=1e-4)
    assert compared > 30


def test_a_lander_is_rewarded_by_the_plain_ones_formula_whatever_it_does() -> None:
    plain(DRAWN)
    pool, generator, over = made(DRAWN, 1), np.random.default_rng(0), False
    seen, _ = pool.reset(seed=1)
    for _ in range(400):
        action, before = int(generator.integers(4)), seen[0].astype(float)
        began = over
        seen, rewards, failed, cut, _ = pool.step(np.array([action]))
        over = bool(failed[0] or cut[0])
        fuel = {0: 0.0, 1: 0.03, 2: 0.3, 3: 0.03}[action]
        expected = -100.0 if over else potential(seen[0].astype(float)) - potential(before) - fuel
        if not began:
            assert rewards[0] == pytest.approx(expected, abs=1e-4)


def potential(seen: np.ndarray) -> float:
    """Gymnasium's: what a lander's reward is the change of."""
    x, y, vx, vy, tilt, _, left, right = seen
    away = np.hypot(x, y) + np.hypot(vx, vy) + abs(tilt)
    return float(10 * (left + right) - 100 * away)


@pytest.mark.parametrize("name", NAMES)
def test_spaces_types_and_lengths_are_the_plain_environments(name: str) -> None:
    one, pool = plain(name), made(name, 3)
    assert isinstance(pool, VectorEnv)
    assert pool.single_observation_space == one.observation_space
    assert pool.single_action_space == one.action_space
    expected = SyncVectorEnv([lambda: gym.make(name)] * 3)
    assert pool.observation_space == expected.observation_space
    assert pool.metadata["autoreset_mode"] == expected.metadata["autoreset_mode"]
    actions = drawn(one.action_space, np.random.default_rng(0), 3)
    for env in (pool, expected):
        env.reset(seed=0)
    for got, wanted in zip(pool.step(actions)[:4], expected.step(actions)[:4], strict=True):
        assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape)
    assert gym.spec(PREFIX + name).max_episode_steps == gym.spec(name).max_episode_steps


def test_a_pool_begins_episodes_and_cuts_them_off_when_gymnasiums_vector_does() -> None:
    pool = made("CartPole-v1", 1, max_episode_steps=7)
    vector = SyncVectorEnv([lambda: gym.make("CartPole-v1", max_episode_steps=7)])
    for env in (pool, vector):
        env.reset(seed=0)
    ends = []
    for step in range(30):
        # Turns that keep the pole up for longer than seven steps.
        action = np.array([step % 2])
        ends.append([[rows[0] for rows in env.step(action)[1:4]] for env in (pool, vector)])
    assert [ours for ours, _ in ends] == [theirs for _, theirs in ends]
    assert sum(cut for (_, _, cut), _ in ends) == 3


def episode(pool: Any, seed: int | list[int] | None, steps: int = 40) -> np.ndarray:
    generator = np.random.default_rng(0)
    first = pool.reset(seed=seed)[0]
    actions = generator.integers(2, size=steps)
    return np.stack([first, *(pool.step(np.full(pool.num_envs, one))[0] for one in actions)])


def test_a_seed_gives_the_same_episodes_again_and_each_environment_its_own() -> None:
    pool = made("CartPole-v1", 2)
    first = episode(pool, 5)
    assert np.array_equal(first, episode(pool, 5))
    assert np.array_equal(first, episode(made("CartPole-v1", 2), [5, 6]))
    assert np.array_equal(first[:, 1], episode(made("CartPole-v1", 1), 6)[:, 0])
    assert not np.array_equal(first[:, 0], first[:, 1])
    assert not np.array_equal(first, episode(pool, None))


def test_what_a_pool_gave_is_not_overwritten_by_its_next_step() -> None:
    pool = made("CartPole-v1", 2)
    seen, _ = pool.reset(seed=0)
    held = seen.copy()
    pool.step(np.zeros(2, int))
    pool.step(np.zeros(2, int))
    assert np.array_equal(seen, held)


def test_an_environment_alone_is_gymnasiums_with_its_seeds() -> None:
    one, its_own = gym.make(f"rayprune.envs.envpool:{PREFIX}CartPole-v1"), gym.make("CartPole-v1")
    assert type(one.unwrapped) is type(its_own.unwrapped)
    assert np.array_equal(one.reset(seed=7)[0], its_own.reset(seed=7)[0])


def test_a_setting_that_a_pool_may_not_follow_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\['sutton_barto_reward'\] can't be followed"):
        made("CartPole-v1", sutton_barto_reward=True)


def test_without_envpool_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "envpool", None)
    with pytest.raises(ImportError, match=r"rayprune\[envpool\]"):
        EnvPool("CartPole-v1")
