"""A vector's environments stepped one after the other, without what wraps them at every step.

RLlib steps gymnasium's `SyncVectorEnv` in gymnasium's `DictInfoToList`: infos are made arrays by
one and dicts again by the other, observations are stacked and copied by functions of their spaces.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any, Final, TypeAlias

import numpy as np
from gymnasium.spaces import Box, MultiDiscrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import concatenate, iterate
from gymnasium.wrappers.vector import DictInfoToList

from rayprune.rllib.sampling.episodes import Array

Info: TypeAlias = dict[str, Any]
Results: TypeAlias = tuple[Any, Array, Array, Array, list[Info]]
"""Observations, rewards, whether an episode was terminated, or truncated, and infos."""
Step: TypeAlias = Callable[[Any], Any]
"""Takes the actions of all environments."""

_REPLACED: Final = {"step", "_add_info", "_convert_info_to_list"}
"""Methods that somebody may have put others in place of."""


def stepping(env: Any) -> Step:
    """Return what steps an EnvRunner's environments: itself, where it is no plain vector.

    Args:
        env: the EnvRunner's.
    """
    vector = getattr(env, "env", None)
    plain = type(env) is DictInfoToList and type(vector) is SyncVectorEnv
    if not plain or _REPLACED & {*vars(env), *vars(vector)}:
        step: Step = env.step
        return step
    assert type(vector) is SyncVectorEnv
    assert vector.copy, "RLlib asks for copies"
    assert vector.autoreset_mode is AutoresetMode.NEXT_STEP, "RLlib takes no other"
    return _DirectSteps(env, vector)


class Failing:
    """An EnvRunner's environments of which one has failed: does so again for who wants to see it.

    Args:
        env: the EnvRunner's.
        error: what it has raised.
    """

    def __init__(self, env: Any, error: Exception) -> None:
        self._error = error
        self.close = env.close

    def step(self, actions: Any) -> Any:
        """Raise what was raised."""
        raise self._error


class _DirectSteps:
    """Steps a vector's environments, and leaves it as it would be after its own step.

    Args:
        env: makes dicts of the vector's infos.
        vector: resets an environment in the step after one that ended its episode.
    """

    def __init__(self, env: DictInfoToList, vector: SyncVectorEnv) -> None:
        self._env, self._vector = env, vector
        space = vector.single_observation_space
        # None of observations that gymnasium stacks in another way.
        self._form = (space.shape, space.dtype) if type(space) is Box and space.shape else None

    def __call__(self, actions: Any) -> Results:
        """Step all environments; return what ``env.step`` does."""
        vector, infos = self._vector, _Infos(self._env, self._vector)
        seen, rewards = vector._env_obs, vector._rewards
        terminated, truncated = vector._terminations, vector._truncations
        begins = vector._autoreset_envs.tolist()
        for place, (action, env) in enumerate(zip(self._each(actions), vector.envs, strict=True)):
            if begins[place]:
                seen[place], info = env.reset()
                rewards[place], terminated[place], truncated[place] = 0.0, False, False
            else:
                step = env.step(action)
                seen[place], rewards[place], terminated[place], truncated[place], info = step
            if info != {}:
                infos.add(place, info)
        vector._autoreset_envs = np.logical_or(terminated, truncated)
        ends = rewards.copy(), terminated.copy(), truncated.copy()
        return self._stacked(seen), *ends, infos.taken()

    def _each(self, actions: Any) -> Any:
        space = self._vector.action_space
        in_rows = type(actions) is np.ndarray and type(space) in (Box, MultiDiscrete)
        return actions if in_rows else iterate(space, actions)

    def _stacked(self, seen: Sequence[Any]) -> Any:
        form, vector = self._form, self._vector
        if form is None or not all(
            type(one) is np.ndarray and (one.shape, one.dtype) == form for one in seen
        ):
            space = vector.single_observation_space
            vector._observations = concatenate(space, seen, vector._observations)
            return deepcopy(vector._observations)
        shape, dtype = form
        flat = np.empty((len(seen) * shape[0], *shape[1:]), dtype)
        np.concatenate(seen, out=flat)
        return flat.reshape(len(seen), *shape)


class _Infos:
    """The infos of one step, taken in as they come: an environment may go on to write into its.

    Args:
        env: makes dicts of the vector's infos.
        vector: makes arrays of its environments' infos.
    """

    def __init__(self, env: DictInfoToList, vector: SyncVectorEnv) -> None:
        self._env, self._vector = env, vector
        self._plain: dict[int, Info] = {}
        """By place, as long as all are plain and alike."""
        self._kinds: list[tuple[str, type]] = []
        self._others: Info | None = None
        """gymnasium's, of all of them, from the first on that isn't."""

    def add(self, place: int, info: Info) -> None:
        """Take in an environment's info that isn't empty."""
        if self._others is None and self._is_plain(info):
            self._plain[place] = dict(info)
        else:
            self._others = self._vector._add_info(self._as_gymnasium(), info, place)

    def taken(self) -> list[Info]:
        """Return all of them as `DictInfoToList` does."""
        plain, count = self._plain, self._vector.num_envs
        if self._others is None and len(plain) in (0, count):
            makes = [(key, _MAKES[kind]) for key, kind in self._kinds]
            return [{key: make(plain[place][key]) for key, make in makes} for place in range(count)]
        # What one environment doesn't tell stands in the others' arrays all the same.
        infos: list[Info] = self._env._convert_info_to_list(self._as_gymnasium())
        return infos

    def _is_plain(self, info: Info) -> bool:
        kinds = [(key, type(value)) for key, value in info.items()]
        if self._plain:
            # The first one's type is that of a key's array.
            return kinds == self._kinds
        self._kinds = kinds
        return all(
            kind in _MAKES and key != "final_obs" and not key.startswith("_") for key, kind in kinds
        )

    def _as_gymnasium(self) -> Info:
        held: Info = {} if self._others is None else self._others
        if self._others is None:
            for place, info in self._plain.items():
                held = self._vector._add_info(held, info, place)
        return held


def _itself(value: Any) -> Any:
    return value


_MAKES: Final[Mapping[type, Callable[[Any], Any]]] = {
    int: np.dtype(int).type,
    float: np.float64,
    bool: np.bool_,
    **dict.fromkeys((np.float64, np.float32, np.int64, np.int32, str, type(None)), _itself),
}
"""What becomes of a value in an array of its type, or of objects."""
