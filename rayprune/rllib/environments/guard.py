"""Environments that say what is wrong with them: which one, at which step, and why.

What a user's environment raises reaches the driver in RLlib's and Ray's envelopes or not at all;
what it gives that isn't a number turns up much later, as a loss or a weight that is none.
"""

from __future__ import annotations

import functools
import logging
import math
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import gymnasium as gym
import numpy as np
import tree
from ray.rllib.env.multi_agent_env import MultiAgentEnv
from ray.rllib.utils.spaces.space_utils import batch

from rayprune.config import EvaluationConfig
from rayprune.errors import EnvError, RaypruneError
from rayprune.reasons import RAISED, chain_of, found_in, reason_of
from rayprune.rllib.actors.lost_env_runners import report
from rayprune.rllib.connectors.encoding import short
from rayprune.rllib.environments.observation_form import misfit
from rayprune.tracking.reporter import tell

_TRACEBACKS: Final = ("Environment step failed", "Resetting the env", "Worker exception caught")
"""Beginnings, after RLlib's own name, of what it logs with a traceback beside raising it."""
_STEPPING: Final = {"_try_env_step", "_try_env_reset"}
"""RLlib's methods that call a user's environment."""
_NO_REWARD: Final = (
    ": nothing can be learnt from that. Look for a division by zero, or a logarithm, where the "
    "reward is computed."
)
_RESET: Final = " `reset` must return observation and info, as in gymnasium; gym's gave one."
_STEP: Final = (
    " `step` must return observation, reward, terminated, truncated and info, as in gymnasium; "
    "gym's had one `done`."
)
_MOST_SHOWN: Final = 60
_REWARDS: Final = frozenset({float, np.float64})
_TOO_LARGE: Final = 2.0**64
"""Its square is the first power of two beyond float32."""
_OVERFLOWS: Final = (
    ": networks learn in float32, which its square is too large for. Return rewards of about 1."
)
MAX_STEPS_KEY: Final = "rayprune_max_steps"
"""Key, in ``AlgorithmConfig.learner_config_dict``, of `evaluation.max_steps`."""
_ODD: Final = "rayprune_odd_observation"


class Guarded(gym.Wrapper[Any, Any, Any, Any]):
    """An environment whose faults come as an `EnvError` that names it, the step and the reason.

    Args:
        env: the user's.
        name: what the user calls it.
        most: steps after which an episode is cut off, None for never.
    """

    def __init__(self, env: gym.Env[Any, Any], name: str, most: int | None = None) -> None:
        super().__init__(env)
        self._name, self._most = name, most
        self.cut = False
        """Whether its last episode was cut off."""
        self._steps = 0
        self._seed: int | None = None
        space = env.observation_space
        # None of a space whose observations are looked at more closely.
        self._form = (space.shape, space.dtype) if isinstance(space, gym.spaces.Box) else None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """See `gymnasium.Env.reset`."""
        self._steps, self._seed, self.cut = 0, seed, False
        try:
            observation, info = self.env.reset(seed=seed, options=options)
        except RAISED as error:
            told = f"{self._told} failed in reset: {_reason(error, _RESET)}"
            raise EnvError(told) from error
        self._check_seen(observation, info)
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """See `gymnasium.Env.step`."""
        self._steps += 1
        try:
            given: Any = self.env.step(action)
            observation, reward, terminated, truncated, info = given
        except RAISED as error:
            told = f"{self._told} failed{self._moment}: {_reason(error, _STEP)}"
            raise EnvError(told) from error
        # The usual one by its type alone: this runs at every step.
        if not (type(reward) in _REWARDS and -_TOO_LARGE < reward < _TOO_LARGE):
            self._check(reward)
        self._check_seen(observation, info)
        if self._steps == self._most and not (terminated or truncated):
            self.cut = truncated = True
        return observation, reward, terminated, truncated, info

    def close(self) -> None:
        """See `gymnasium.Env.close`."""
        self.env.close()

    @property
    def _told(self) -> str:
        return f"Environment {self._name!r}"

    @property
    def _moment(self) -> str:
        seed = "" if self._seed is None else f" that was reset with seed {self._seed}"
        step = f" at step {self._steps}" if self._steps else " at the reset"
        return f"{step} of an episode{seed}"

    def _check_seen(self, observation: Any, info: Any) -> None:
        # The usual ones by their types alone, as rewards.
        if type(info) is not dict and not isinstance(info, Mapping):
            raise EnvError(
                f"{self._told} gave {_shown(info)} as info{self._moment}, but that must be a "
                "dict. Return `{}` there."
            )
        if type(observation) is np.ndarray and (observation.shape, observation.dtype) == self._form:
            return
        found = misfit(self.env.observation_space, observation)
        if found is not None:
            part = f" (part {'.'.join(map(str, found.path))})" if found.path else ""
            raise EnvError(
                f"{self._told} gave {_shown(found.value)} as observation{part}{self._moment}, but "
                f"its `observation_space` says {short(found.space)}. Mend one of the two."
            )

    def _check(self, reward: Any) -> None:
        if np.ndim(reward) != 0 or np.asarray(reward).dtype.kind not in "biuf":
            raise EnvError(
                f"{self._told} gave {_shown(reward)} as reward{self._moment}, but a reward must be "
                "one number. Return `float(reward)` there."
            )
        if not math.isfinite(reward):
            raise EnvError(f"{self._told} gave {reward} as reward{self._moment}{_NO_REWARD}")
        if abs(reward) >= _TOO_LARGE:
            raise EnvError(f"{self._told} gave {reward} as reward{self._moment}{_OVERFLOWS}")


def guard(env_runner: Any, most: int | None = None) -> None:
    """Let an EnvRunner tell what is wrong with its environments; call it whenever it made them.

    Args:
        env_runner: of one agent or several.
        most: see `Guarded`.
    """
    name = env_name(env_runner.config)
    envs = getattr(env_runner.env.unwrapped, "envs", None)
    # Environments in processes of their own, and vectorised ones, aren't within reach.
    if isinstance(envs, list) and not any(isinstance(e.unwrapped, MultiAgentEnv) for e in envs):
        envs[:] = [Guarded(env, name, most) for env in envs]
    if "sample" not in vars(env_runner):
        env_runner.sample = functools.partial(_sample, env_runner, env_runner.sample)


def env_name(config: Any) -> str:
    """Return what a user calls the environment of an AlgorithmConfig."""
    return config.env if isinstance(config.env, str) else getattr(config.env, "__name__", "?")


def most_steps(config: Any) -> int:
    """Return how many steps an episode may last that measures a policy."""
    return int(config.learner_config_dict.get(MAX_STEPS_KEY, EvaluationConfig().max_steps))


def tell_of_cut(cut: int, config: Any) -> None:
    """Say that episodes were cut off, if any were."""
    if cut:
        tell(
            f"{cut} episode(s) of {env_name(config)!r} had not ended after {most_steps(config):,} "
            "steps and were cut off there; their returns count so far. Raise "
            "`evaluation.max_steps` if they should go on, or let the environment end: gymnasium "
            "truncates after `env_config.max_episode_steps`."
        )


def silence_tracebacks() -> None:
    """Leave out what RLlib logs, with tracebacks, of what a driver of ours tells in a line."""
    # A function that is there already is not added again.
    logging.getLogger("ray.rllib").addFilter(_is_no_traceback)
    logging.getLogger("ray.rllib.utils.actor_manager").addFilter(_is_no_error)


def _is_no_traceback(record: logging.LogRecord) -> bool:
    told = record.getMessage()
    return not (record.exc_info and any(begin in told for begin in _TRACEBACKS))


def _is_no_error(record: logging.LogRecord) -> bool:
    return record.levelno < logging.ERROR


def _sample(env_runner: Any, sample: Callable[..., list[Any]], **keywords: Any) -> list[Any]:
    """Sample; raise an EnvError where the environments are to blame."""
    try:
        episodes = sample(**keywords)
        # A lean EnvRunner has looked at all of them at once.
        finite = getattr(env_runner, "sampled_finite", False)
        if not finite:
            check_rewards(env_name(env_runner.config), episodes)
    except RAISED as error:
        fault = _fault_of(env_runner, error)
        if env_runner.worker_index:
            # Remote, it ends now, and the reason with it: RLlib only sees that it has died.
            report(str(fault) if isinstance(fault, RaypruneError) else reason_of(fault))
        # Not from what was raised from it: Ray follows causes until they end.
        wrapped = any(fault is one for one in chain_of(error))
        raise fault from fault.__cause__ if wrapped else error
    if not (finite or hasattr(env_runner, _ODD)):
        odd = odd_observation(env_name(env_runner.config), episodes)
        if odd is not None:
            setattr(env_runner, _ODD, odd)
    return episodes


def _fault_of(env_runner: Any, error: BaseException) -> BaseException:
    ours = found_in(error, RaypruneError)
    if ours is not None:
        return ours
    name = env_name(env_runner.config)
    open_ones = [one for one in getattr(env_runner, "_ongoing_episodes", ()) if one is not None]
    odd = odd_observation(name, open_ones) or odd_observation_of(env_runner)
    if odd is not None:
        return EnvError(odd)
    if any(frame.name in _STEPPING for frame in traceback.extract_tb(error.__traceback__)):
        return EnvError(f"Environment {name!r} failed: {reason_of(error)}.")
    return error


def note_last_observation(env_runner: Any, episode: Any) -> None:
    """Remember if an episode ended in no number: RLlib acts on that too, and holds it no more."""
    for one in _of_one_agent([episode]):
        leaves = tree.flatten(one.get_observations(-1)) if one.is_reset else ()
        if not all(_is_finite(leaf) for leaf in map(np.asarray, leaves) if leaf.dtype.kind == "f"):
            setattr(env_runner, _ODD, odd_observation(env_name(env_runner.config), [one]))


def odd_observation_of(env_runner: Any) -> str | None:
    """Return what `odd_observation` first said of an EnvRunner's samples, if anything."""
    return getattr(env_runner, _ODD, None)


def check_rewards(env: str, episodes: Iterable[Any]) -> None:
    """Raise EnvError if a reward is NaN or infinite.

    Args:
        env: what the user calls the environment.
        episodes: of one agent or several.
    """
    for episode in _of_one_agent(episodes):
        rewards = np.asarray(episode.get_rewards(), dtype=float)
        if not _is_finite(rewards):
            step, value = _first(rewards)
            moment = f" at step {episode.t_started + step + 1} of an episode"
            raise EnvError(f"Environment {env!r} gave {value} as reward{moment}{_NO_REWARD}")


def odd_observation(env: str, episodes: Iterable[Any]) -> str | None:
    """Return a sentence on the first observation that is NaN or infinite; None without one.

    That is no fault by itself: a user's own connectors and modules may know what to do with it.
    """
    for episode in _of_one_agent(episodes):
        for path, leaf in tree.flatten_with_path(_stacked(episode.get_observations())):
            if leaf.dtype.kind == "f" and not _is_finite(leaf):
                step, value = _first(leaf)
                part = f" (part {'.'.join(map(str, path))})" if path else ""
                return (
                    f"Environment {env!r} gave {value} in an observation{part}, after "
                    f"{episode.t_started + step} steps of an episode. Check where it is read, and "
                    "replace it before it is returned."
                )
    return None


def _of_one_agent(episodes: Iterable[Any]) -> Iterator[Any]:
    for episode in episodes:
        of_agents = getattr(episode, "agent_episodes", None)
        yield from [episode] if of_agents is None else of_agents.values()


def _stacked(observations: Any) -> Any:
    """Return observations as arrays whose first dimension is time."""
    if isinstance(observations, list):
        observations = batch(observations) if observations else np.zeros(0)
    return tree.map_structure(np.asarray, observations)


def _is_finite(values: np.ndarray[Any, Any]) -> bool:
    # A sum is far cheaper than a test of each; only if that isn't finite are they looked at.
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(values.sum())) or bool(np.isfinite(values).all())


def _first(values: np.ndarray[Any, Any]) -> tuple[int, float]:
    """Return the step of the first value that isn't finite, and that value."""
    place = np.argwhere(~np.isfinite(values))[0]
    return int(place[0]), float(values[tuple(place)])


def _shown(value: Any) -> str:
    if isinstance(value, np.ndarray) and (value.shape or value.dtype == object):
        kind = "" if value.dtype.kind in "biuf" else f" and dtype {value.dtype}"
        return f"an array of shape {value.shape}{kind}"
    text = " ".join(repr(value).split())
    text = text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."
    return f"{text} ({type(value).__name__})"


def _reason(error: BaseException, returns: str) -> str:
    # Whoever unpacks it first, gymnasium's wrappers or we, says no more than that it can't.
    return f"{reason_of(error)}.{returns if 'unpack' in str(error) else ''}"
