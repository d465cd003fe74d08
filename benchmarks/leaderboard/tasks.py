"""Tasks: what is learnt, by which file, and how the environment is shifted afterwards."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import gymnasium as gym
import numpy as np

from benchmarks.leaderboard.conv_nets import ConvNet
from rayprune import yaml12

FOLDER: Final = Path(__file__).parent / "tasks"
ENVPOOL: Final = "rayprune.envs.envpool:EnvPool/"
NOISE: Final = 0.1
"""Of the noisy environment: deviation in those of a random policy's observations."""

Env = gym.Env[Any, Any]


@dataclass(frozen=True, kw_only=True)
class Shift:
    """A variant of an environment that no policy was trained in."""

    env_config: Mapping[str, Any] = field(default_factory=dict)
    """Keywords of the environment."""
    attributes: Mapping[str, float] = field(default_factory=dict)
    """Attributes of the environment, multiplied."""
    model: Mapping[str, float] = field(default_factory=dict)
    """Arrays of MuJoCo's model, such as ``body_mass``, multiplied."""
    noise: float = 0.0
    """Normal noise on each observation, in deviations of a random policy's."""


NOISY: Final = {"noisy observations": Shift(noise=NOISE)}
MUJOCO: Final = {
    **NOISY,
    "heavier by 20 %": Shift(model={"body_mass": 1.2, "body_inertia": 1.2}),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """What is learnt."""

    name: str
    """Also that of its file in tasks/."""
    suites: tuple[str, ...]
    reference: str
    """The dense return that others reached."""
    inputs: int = 0
    """Of an actor that is a fully connected net; 0 where it is another."""
    image: tuple[int, int] = (0, 0)
    """Channels, and height as width, of what an actor of convolutions sees."""
    outputs: int = 0
    data: str = ""
    """The task whose dense policy's episodes it learns from; empty where it samples."""
    shifts: Mapping[str, Shift] = field(default_factory=lambda: NOISY)
    episodes: int = 100
    """On fresh seeds, of each exported file; half as many in each shifted environment."""

    @property
    def config(self) -> Path:
        """Its file, which trains the dense policy."""
        return FOLDER / f"{self.name}.yaml"

    @functools.cached_property
    def raw(self) -> dict[str, Any]:
        """What the file says."""
        return yaml12.read_mapping(self.config)

    @property
    def plain(self) -> str:
        """The environment's own id, where an engine of many trains."""
        return str(self.raw["env"]).removeprefix(ENVPOOL)

    @property
    def steps(self) -> int:
        """Env steps of a run; updates where it learns from recorded data."""
        stop = self.raw["stop"]
        return int(stop.get("env_steps") or stop["updates"])

    @property
    def every(self) -> int:
        """Steps between mask updates."""
        return int(self.raw["pruning"]["schedule"]["every"])

    @property
    def layers(self) -> tuple[int, ...]:
        """Widths of the dense actor, inputs and outputs included; empty for another kind of net."""
        if not self.inputs:
            return ()
        hiddens = self.raw["rllib"]["rl_module"]["model_config"]["policy_hiddens"]
        return (self.inputs, *hiddens, self.outputs)

    @property
    def conv_net(self) -> ConvNet | None:
        """The dense actor of convolutions and one hidden layer; None for another kind of net."""
        if not self.image[0]:
            return None
        model = self.raw["rllib"]["rl_module"]["model_config"]
        filters = tuple((n, kernel, stride) for n, kernel, stride in model["conv_filters"])
        (hidden,) = model["head_fcnet_hiddens"]
        return ConvNet(*self.image, filters, hidden, self.outputs)

    @property
    def free_deviation(self) -> bool:
        """Whether its policy draws actions with a deviation that is a parameter."""
        model = self.raw["rllib"]["rl_module"].get("model_config", {})
        return bool(model.get("free_log_std"))

    def env(self, shift: Shift | None = None) -> Callable[[], Env]:
        """Return what makes one plain environment."""
        return functools.partial(_env, self.raw, shift or Shift())


def deviations(task: Task, episodes: int = 20) -> Any:
    """Return the deviation of each reading under a random policy, shape of an observation."""
    seen = [reading for seed in range(episodes) for reading in random_episode(task, seed)[1]]
    return np.asarray(seen, np.float64).std(axis=0)


def random_episode(task: Task, seed: int) -> tuple[float, list[Any]]:
    """Return a random policy's return, and what it saw."""
    env = task.env()()
    env.action_space.seed(seed)
    observation, _ = env.reset(seed=seed)
    seen, total, over = [observation], 0.0, False
    while not over:
        observation, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        seen.append(observation)
        total, over = total + float(reward), terminated or truncated
    env.close()
    return total, seen


class Noisy(gym.ObservationWrapper[Any, Any, Any]):
    """Adds normal noise to observations, by the seed that an episode begins with."""

    def __init__(self, env: Env, scale: Any) -> None:
        super().__init__(env)
        self._scale, self._random = scale, np.random.default_rng(0)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode, and its noise."""
        self._random = np.random.default_rng(seed)
        return super().reset(seed=seed, options=options)

    def observation(self, observation: Any) -> Any:
        """Add the noise."""
        noise = self._random.normal(size=np.shape(observation)) * self._scale
        return (observation + noise).astype(np.asarray(observation).dtype)


def noisy(task: Task, make: Callable[[], Env], share: float) -> Callable[[], Env]:
    """Return what makes environments with noise of so many deviations."""
    scale = share * deviations(task)
    return lambda: Noisy(make(), scale)


def _env(raw: Mapping[str, Any], shift: Shift) -> Env:
    name = str(raw["env"]).removeprefix(ENVPOOL)
    env = gym.make(name, **{**raw.get("env_config", {}), **shift.env_config})
    plain: Any = env.unwrapped
    for attribute, factor in shift.attributes.items():
        setattr(plain, attribute, factor * getattr(plain, attribute))
    for array, factor in shift.model.items():
        getattr(plain.model, array)[:] *= factor
    return env


_ALL: Final = (
    Task(
        name="cartpole",
        suites=("smoke",),
        reference="500",
        inputs=4,
        outputs=2,
        # gymnasium derives the second from the first, once.
        shifts={
            **NOISY,
            "longer pole": Shift(attributes={"length": 2.0, "polemass_length": 2.0}),
        },
    ),
    Task(
        name="lunarlander",
        suites=("quick", "classic"),
        reference="242 (zoo)",
        inputs=8,
        outputs=4,
        shifts={
            **NOISY,
            "weaker gravity": Shift(env_config={"gravity": -8.0}),
            "wind": Shift(env_config={"enable_wind": True, "wind_power": 10.0}),
        },
    ),
    Task(
        name="acrobot",
        suites=("quick", "classic"),
        reference="-86.4 +- 1.3 (CleanRL)",
        inputs=6,
        outputs=3,
        shifts={**NOISY, "heavier second link": Shift(attributes={"LINK_MASS_2": 1.3})},
    ),
    Task(
        name="hopper",
        suites=("quick", "control"),
        reference="2,383 +- 272 (CleanRL, v4)",
        inputs=11,
        outputs=3,
        shifts=MUJOCO,
        episodes=50,
    ),
    Task(
        name="swimmer",
        suites=("control",),
        reference="282 (zoo)",
        inputs=8,
        outputs=2,
        shifts=MUJOCO,
        episodes=20,
    ),
    Task(
        name="halfcheetah",
        suites=("control",),
        reference="5,819 (zoo, 256 x 256)",
        inputs=17,
        outputs=6,
        shifts=MUJOCO,
        episodes=20,
    ),
    Task(
        name="walker2d",
        suites=("control",),
        reference="3,479 (zoo, 256 x 256)",
        inputs=17,
        outputs=6,
        shifts=MUJOCO,
        episodes=50,
    ),
    Task(
        name="lunarlander_continuous",
        suites=("classic",),
        reference="271 (zoo)",
        inputs=8,
        outputs=2,
        shifts={**NOISY, "weaker gravity": Shift(env_config={"gravity": -8.0})},
    ),
    Task(
        name="minatar_breakout",
        suites=("pixels",),
        reference="28 (gymnax's PPO, 10 million steps, no sticky actions); 16.7 (DQN, 5 million)",
        image=(4, 10),
        outputs=3,
        shifts={"no sticky actions": Shift(env_config={"sticky_action_prob": 0.0})},
    ),
    Task(
        name="minatar_space_invaders",
        suites=("pixels",),
        reference="131 (gymnax's PPO, 10 million steps)",
        image=(6, 10),
        outputs=4,
        shifts={"no sticky actions": Shift(env_config={"sticky_action_prob": 0.0})},
    ),
    Task(
        name="doorkey",
        suites=("pixels",),
        reference=".964 (zoo)",
        shifts={"8 x 8 cells": Shift(env_config={"task": "MiniGrid-DoorKey-8x8-v0"})},
    ),
    Task(name="memory", suites=("pixels",), reference="8 is the best"),
    Task(
        name="offline_lunarlander",
        suites=("offline",),
        reference="the recorded episodes'",
        data="lunarlander",
    ),
)

TASKS: Final[Mapping[str, Task]] = {task.name: task for task in _ALL}
"""Name -> task, in the order in which they are run."""
SUITES: Final = tuple(dict.fromkeys(suite for task in _ALL for suite in task.suites))
