"""RLlib connectors of ours: what a module reads of an observation, and what becomes of its action.

RLlib's own nets take flat float Boxes and images, and its own connectors leave an action that a
`Discrete` space numbers from elsewhere than 0, or that a Box bounds on one side, outside the space.
"""

from __future__ import annotations

import copy
import functools
from collections import defaultdict
from collections.abc import Callable
from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np
import tree
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core.columns import Columns
from ray.rllib.env import INPUT_ENV_SINGLE_SPACES
from ray.rllib.env.utils.infinite_lookback_buffer import InfiniteLookbackBuffer
from ray.rllib.utils.spaces.space_utils import get_base_struct_from_space, unbatch

from rayprune.policies.spaces import Space, leaves
from rayprune.rllib.connectors.encoding import (
    Array,
    Encoding,
    is_nested,
    reads_as_it_is,
)

Fit: TypeAlias = Callable[[Any], Any]


def connect(config: AlgorithmConfig, *, raw: bool) -> None:
    """Give a config the connectors that make its environment's spaces fit its module.

    Args:
        config: complete; changed in place.
        raw: the module is a user's own and reads observations as they are, unless they are nested.
    """
    encode = functools.partial(encode_observations, raw=raw)
    config.env_runners(
        env_to_module_connector=encode,
        module_to_env_connector=functools.partial(
            fit_actions, normalize=config.normalize_actions, clip=config.clip_actions
        ),
    )
    # `FitActions` does both: RLlib's own connector would begin with the module's action again.
    config.environment(normalize_actions=False, clip_actions=False)
    if config.is_offline:
        connector = EncodeEpisodes(
            config.observation_space,  # type: ignore[arg-type]  # RLlib begins with None
            config.action_space,  # type: ignore[arg-type]
            raw=raw,
            # Episodes that RLlib wrote hold what its modules did, whose choices are from 0 already.
            numbered=not config.input_read_episodes,
        )
        config.learners(learner_connector=functools.partial(_learner_connectors, connector))


def encode_observations(
    env: Any = None, spaces: Any = None, device: Any = None, *, raw: bool = False
) -> list[ConnectorV2]:
    """Return the connector that encodes observations, if the module can't read them as they are.

    Args:
        env: a vector environment.
        spaces: RLlib's dict of spaces, where there is no environment.
        device: not needed.
        raw: see `connect`.
    """
    space, _ = _spaces(env, spaces)
    return [EncodeObservations()] if is_encoded(space, raw=raw) else []


def fit_actions(
    env: Any = None, spaces: Any = None, *, normalize: bool, clip: bool
) -> list[ConnectorV2]:
    """Return the connector that brings actions into their space, if it takes one.

    Args:
        env: a vector environment.
        spaces: RLlib's dict of spaces, where there is no environment.
        normalize: see `FitActions`.
        clip: likewise.
    """
    _, space = _spaces(env, spaces)
    return [FitActions(normalize=normalize, clip=clip)] if space is None or is_fitted(space) else []


def is_fitted(space: Space) -> bool:
    """Whether a module's action has to be changed for an environment.

    >>> is_fitted(gym.spaces.Discrete(3)), is_fitted(gym.spaces.Discrete(3, start=1))
    (False, True)
    """
    if isinstance(space, (gym.spaces.Discrete, gym.spaces.MultiDiscrete)):
        return bool(np.any(space.start != 0))
    if is_nested(space):
        return any(is_fitted(leaf) for _, leaf in leaves(space))
    return isinstance(space, gym.spaces.Box)


def is_encoded(space: Space | None, *, raw: bool) -> bool:
    """Whether observations of a space are encoded before the module reads them."""
    return space is not None and (is_nested(space) or not (raw or reads_as_it_is(space)))


class EncodeObservations(ConnectorV2):
    """Writes encoded observations into the episodes, from where buffers and Learners take them."""

    encoding: Encoding

    def recompute_output_observation_space(
        self, input_observation_space: Space, input_action_space: Space
    ) -> Space:
        """Return the space of what the module reads."""
        self.encoding = Encoding(input_observation_space)
        return self.encoding.space

    def __call__(self, *, episodes: list[Any], batch: Any, **_: Any) -> Any:
        """Encode the newest observation of each episode."""
        for episode in self.single_agent_episode_iterator(episodes):
            encoded = self.encoding(episode.get_observations(-1))
            episode.set_observations(new_data=encoded, at_indices=-1)
            episode.observation_space = self.encoding.space
        return batch


class KeepObservations(ConnectorV2):
    """Keeps what the environment gave, before other connectors write over it in the episodes."""

    def __init__(
        self,
        input_observation_space: Space | None = None,
        input_action_space: Space | None = None,
    ) -> None:
        super().__init__(input_observation_space, input_action_space)
        self._kept: dict[str, list[Any]] = defaultdict(list)

    def __call__(self, *, episodes: list[Any], batch: Any, **_: Any) -> Any:
        """Keep the newest observation of each episode."""
        for episode in self.single_agent_episode_iterator(episodes):
            self._kept[episode.id_].append(episode.get_observations(-1))
        return batch

    def restore(self, episode: Any) -> None:
        """Write an episode's observations back into it."""
        kept = self._kept.pop(episode.id_)
        episode.observations = InfiniteLookbackBuffer(kept, 0, self.input_observation_space)


class EncodeEpisodes(ConnectorV2):
    """Encodes all observations of recorded episodes that aren't, and numbers choices from 0.

    Args:
        observations: the environment's space. What RLlib says later on is another, for it takes the
            vector environment's where there is one.
        actions: likewise.
        raw: see `connect`.
        numbered: choices are numbered as the action space has it, and not from 0.
    """

    def __init__(
        self, observations: Space, actions: Space, *, raw: bool = False, numbered: bool = True
    ) -> None:
        self._observations, self._actions = observations, actions
        self._encoding = Encoding(observations) if is_encoded(observations, raw=raw) else None
        self._numbered = numbered
        super().__init__(observations, actions)

    def recompute_output_observation_space(
        self, input_observation_space: Space, input_action_space: Space
    ) -> Space:
        """Return the space of what the module reads."""
        return self._observations if self._encoding is None else self._encoding.space

    def __call__(self, *, episodes: list[Any], batch: Any, **_: Any) -> Any:
        """Encode the episodes, each of which is of this batch alone."""
        for episode in self.single_agent_episode_iterator(episodes, agents_that_stepped_only=False):
            if self._encoding is not None:
                _rewrite(episode, "observations", self._encode, self._encoding.space)
            if self._numbered:
                number = functools.partial(renumber, space=self._actions, by=-1)
                _rewrite(episode, "actions", number, self._actions)
        return batch

    def _encode(self, observation: Any) -> Any:
        """Encode an observation, unless it came out of an EnvRunner, where it was encoded."""
        assert self._encoding is not None
        kind = (getattr(observation, "dtype", None), getattr(observation, "shape", None))
        done = kind == (np.float32, self._encoding.space.shape)
        return observation if done else self._encoding(observation)


class FitActions(ConnectorV2):
    """Makes the environment's actions of the module's.

    Args:
        input_observation_space: the environment's.
        input_action_space: likewise.
        normalize: map [-1, 1] to the bounds of what has two of them.
        clip: clip to the bounds; where ``normalize`` is set that is done in any case.
    """

    def __init__(
        self,
        input_observation_space: Space | None = None,
        input_action_space: Space | None = None,
        *,
        normalize: bool = True,
        clip: bool = False,
    ) -> None:
        self.normalize, self.clip = normalize, clip
        super().__init__(input_observation_space, input_action_space)

    def recompute_output_action_space(
        self, input_observation_space: Space, input_action_space: Space
    ) -> Space:
        """Return the environment's action space."""
        self._fit = fitting(input_action_space, normalize=self.normalize, clip=self.clip)
        self._fit_all = (
            _to_box(input_action_space, normalize=self.normalize, clip=self.clip, many=True)
            if _is_float_box(input_action_space)
            else None
        )
        return input_action_space

    def fit_all(self, actions: Array) -> Array:
        """Return the environments' actions, of the module's, shape ``(envs, *shape)``.

        Args:
            actions: one of each environment; their space is not nested.
        """
        if self._fit_all is not None:
            fitted: Array = self._fit_all(actions)
            return fitted
        return np.array([self._fit(action) for action in actions])

    def __call__(self, *, batch: dict[str, Any], **_: Any) -> Any:
        """Add the column of the environment's actions; the module's own stay as they are."""
        actions = batch[Columns.ACTIONS]
        if isinstance(actions, dict):
            fitted: Any = {key: [self._fit(a) for a in held] for key, held in actions.items()}
        else:
            fitted = [self._fit(action) for action in actions]
        batch[Columns.ACTIONS_FOR_ENV] = fitted
        return batch


def fitting(space: Space, *, normalize: bool, clip: bool) -> Fit:
    """Return what makes an environment's action of a module's.

    >>> half = gym.spaces.Box(np.float32([0, -1]), np.float32([np.inf, 3]))
    >>> fitting(half, normalize=True, clip=False)(np.float32([-2, 0]))
    array([0., 1.], dtype=float32)
    """
    if is_nested(space):
        structure = get_base_struct_from_space(space)
        fits = tree.map_structure(
            lambda leaf: fitting(leaf, normalize=normalize, clip=clip), structure
        )
        return lambda action: tree.map_structure(lambda fit, part: fit(part), fits, action)
    if _is_float_box(space):
        return _to_box(space, normalize=normalize, clip=clip)
    if isinstance(space, gym.spaces.Discrete):
        number, start = np.dtype(space.dtype).type, space.start
        return lambda action: number(action + start)
    if isinstance(space, gym.spaces.MultiDiscrete):
        starts, dtype = space.start, space.dtype
        return lambda action: (np.asarray(action) + starts).astype(dtype, copy=False)
    return lambda action: action


def renumber(action: Any, space: Space, by: int) -> Any:
    """Return an action with its choices numbered by its space (``by`` 1), or from 0 again (-1).

    >>> int(renumber(0, gym.spaces.Discrete(3, start=5), by=1))
    5
    """

    def renumbered(leaf: Space, part: Any) -> Any:
        if isinstance(leaf, (gym.spaces.Discrete, gym.spaces.MultiDiscrete)):
            return np.asarray(part) + np.multiply(by, leaf.start)
        return part

    structure = get_base_struct_from_space(space)
    return tree.map_structure_up_to(structure, renumbered, structure, action)


def two_sided(space: gym.spaces.Box) -> Array:
    """Return which elements of a Box have two bounds, whose distance float can tell; bool."""
    with np.errstate(over="ignore", invalid="ignore"):
        finite: Array = np.isfinite(space.high - space.low)
    return finite


def _is_float_box(space: Space) -> bool:
    return isinstance(space, gym.spaces.Box) and np.dtype(space.dtype).kind == "f"


def _to_box(space: Any, *, normalize: bool, clip: bool, many: bool = False) -> Fit:
    low, high, dtype = space.low, space.high, space.dtype
    shape = (-1, *space.shape) if many else space.shape
    bounded = two_sided(space) & normalize
    everywhere = bool(bounded.all())
    base, span = np.where(bounded, low, 0), np.where(bounded, high - np.where(bounded, low, 0), 0)
    base, span = base.astype(dtype), span.astype(dtype)

    def fit(action: Any) -> Any:
        action = np.asarray(action).reshape(shape)
        if normalize:
            # In RLlib's order of operations, to the last bit.
            mapped = base + (action + 1.0) * span / 2.0
            action = mapped if everywhere else np.where(bounded, mapped, action)
        if normalize or clip:
            action = np.clip(action, low, high)
        return action.astype(dtype, copy=False)

    return fit


def _rewrite(episode: Any, name: str, change: Fit, space: Space) -> None:
    held = getattr(episode, name)
    items = unbatch(held.data) if held.finalized else held.data
    changed: Any = [change(item) for item in items]
    if held.finalized:
        changed = tree.map_structure(lambda *parts: np.stack(parts), *changed)
    buffer = InfiniteLookbackBuffer(changed, held.lookback, space)
    setattr(episode, name, buffer)


def _learner_connectors(connector: ConnectorV2, *_: Any) -> list[ConnectorV2]:
    # A copy, for each pipeline tells its connectors of its own spaces.
    return [copy.deepcopy(connector)]


def _spaces(env: Any, spaces: Any) -> tuple[Space | None, Space | None]:
    if env is not None and hasattr(env, "single_observation_space"):
        return env.single_observation_space, env.single_action_space
    if spaces is not None and INPUT_ENV_SINGLE_SPACES in spaces:
        observations, actions = spaces[INPUT_ENV_SINGLE_SPACES]
        return observations, actions
    return None, None
