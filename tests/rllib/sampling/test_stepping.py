"""Environments stepped one by one give what gymnasium's vector in RLlib's wrapper does."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete
from gymnasium.vector import SyncVectorEnv
from gymnasium.wrappers.vector import DictInfoToList

from rayprune.rllib.sampling.stepping import stepping

Tell = Callable[[int, int], dict[str, Any]]
"""Takes an environment's place and its step, and returns its info."""
SHARED: dict[str, Any] = {}


class Telling(gym.Env[Any, Any]):
    """Tells what a test has it tell; ends after two steps, or three."""

    def __init__(self, place: int, tell: Tell, observations: Any, actions: Any) -> None:
        self.place, self.tell = place, tell
        self.observation_space, self.action_space = deepcopy(observations), actions

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.observation_space.seed(7 + self.place)
        self.steps = 0
        return self.observation_space.sample(), self.tell(self.place, 0)

    def step(self, action: Any) -> Any:
        self.steps += 1
        ends = self.steps == 2 + self.place % 2
        observation = self.observation_space.sample()
        reward = np.float32(np.sum(action))
        return observation, reward, ends, np.bool_(False), self.tell(self.place, self.steps)


def vector(tell: Tell, envs: int, observations: Any, actions: Any) -> Any:
    made = [partial(Telling, place, tell, observations, actions) for place in range(envs)]
    env = DictInfoToList(SyncVectorEnv(made))
    env.reset(seed=3)
    env.action_space.seed(5)
    return env


def same(
    tell: Tell = lambda place, step: {},
    envs: int = 3,
    observations: Any = None,
    actions: Any = None,
) -> None:
    spaces = observations or Box(-1, 1, (2, 3)), actions or Discrete(3)
    theirs, ours = (vector(tell, envs, *spaces) for _ in range(2))
    step = stepping(ours)
    assert step != ours.step
    for turn in range(8):
        taken = theirs.action_space.sample()
        # By turns, for what the vector itself does next must be the same, too.
        made = step(taken) if turn != 5 else ours.step(taken)
        check(theirs.step(taken), made)
    check(theirs.unwrapped.reset(), ours.unwrapped.reset())


def check(theirs: Any, ours: Any) -> None:
    assert type(theirs) is type(ours)
    if isinstance(theirs, dict):
        assert list(theirs) == list(ours)
        theirs, ours = list(theirs.values()), list(ours.values())
    if isinstance(theirs, (list, tuple)):
        assert len(theirs) == len(ours)
        for one, other in zip(theirs, ours, strict=True):
            check(one, other)
    elif isinstance(theirs, np.ndarray):
        assert (theirs.dtype, theirs.shape) == (ours.dtype, ours.shape)
        assert ours.flags.c_contiguous
        if theirs.dtype == object:
            check(list(theirs), list(ours))
        else:
            assert np.array_equal(theirs, ours)
    else:
        assert theirs == ours


PLAIN: dict[str, Any] = {
    "an int": 3,
    "a float": 0.1,
    "a bool": True,
    "single": np.float32(0.1),
    "double": np.float64(0.1),
    "text": "abc",
    "nothing": None,
}
OTHERS: list[Any] = [
    {"array": np.arange(3.0)},
    {"point": np.array(3)},
    {"short": np.int16(3)},
    {"truth": np.bool_(True)},
    {"list": [1, 2], "tuple": (1, 2)},
    {"nested": {"a": 1, "b": {"c": 0.5}}},
    {"_hidden": 1.0, "seen": 2},
    {"final_obs": np.ones(2)},
]


@pytest.mark.parametrize("envs", [1, 3])
def test_plain_infos(envs: int) -> None:
    same(lambda place, step: {**PLAIN, "step": step} if step != 1 else {}, envs)


@pytest.mark.parametrize("info", OTHERS)
def test_infos_of_other_kinds(info: dict[str, Any]) -> None:
    same(lambda place, step: {"step": step, **info})


@pytest.mark.parametrize(
    "tell",
    [
        lambda place, step: {"x": 1.5 if place else 1},  # an array of integers
        lambda place, step: {"x": step} if place == 1 else {},
        lambda place, step: {"x": 1} if place else {"y": 2},
        lambda place, step: {"x": 1, "y": 2} if place else {"y": 2, "x": 1},
        lambda place, step: {"x": np.ones(2) if place == 2 else 1.0},
        lambda place, step: {"x": np.bool_(True) if place else True},
    ],
)
def test_infos_that_differ_from_one_environment_to_the_next(tell: Tell) -> None:
    try:
        vector(tell, 3, Box(-1, 1, (2,)), Discrete(2))
    except Exception as error:  # gymnasium can't put them into one array
        with pytest.raises(type(error)):
            same(tell)
        return
    same(tell)


def test_an_info_that_all_environments_write_into() -> None:
    def tell(place: int, step: int) -> dict[str, Any]:
        SHARED.update(place=place, step=step)
        return SHARED

    same(tell)


@pytest.mark.parametrize(
    ("observations", "actions"),
    [
        (Box(-1, 1, (2,), np.float64), Box(-1, 1, (2,))),
        (Box(0, 255, (4, 3, 2), np.uint8), MultiDiscrete([2, 3])),
        (Box(-1, 1, ()), Discrete(2)),
        (Discrete(4), Box(-1, 1, (1,))),
        (Dict(a=Box(-1, 1, (2,)), b=Discrete(3)), Discrete(3)),
    ],
)
def test_spaces_of_every_kind(observations: Any, actions: Any) -> None:
    same(observations=observations, actions=actions)


def test_observations_of_another_dtype_than_their_space() -> None:
    class Double(Telling):
        def step(self, action: Any) -> Any:
            observation, *rest = super().step(action)
            return observation.astype(np.float64).T.copy().T, *rest

    spaces = Box(-1, 1, (2, 3)), Discrete(3)
    theirs, ours = (
        DictInfoToList(SyncVectorEnv([partial(Double, 0, lambda *_: {}, *spaces)]))
        for _ in range(2)
    )
    for env in (theirs, ours):
        env.reset(seed=1)
    for _ in range(3):
        check(theirs.step(np.array([1])), stepping(ours)(np.array([1])))


def test_who_has_put_another_step_there_is_called() -> None:
    env = vector(lambda *_: {}, 1, Box(-1, 1, (2,)), Discrete(2))
    env.unwrapped.step = lambda actions: "theirs"
    assert stepping(env.unwrapped)(None) == "theirs"
    assert stepping(env) == env.step
