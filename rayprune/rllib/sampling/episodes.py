"""RLlib's episodes, filled with many steps at once and cut without asking their getters."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tree
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.env.utils.infinite_lookback_buffer import InfiniteLookbackBuffer
from ray.rllib.utils.spaces.space_utils import batch

Array = npt.NDArray[Any]


@dataclass(slots=True)
class Steps:
    """Steps of one environment, one after the other; first dimension is time."""

    observations: Array
    """After each step."""
    actions: Array
    rewards: Array
    infos: list[dict[str, Any]]
    outputs: dict[str, Any]
    """Of the module and the connectors: arrays, or nested dicts of them (recurrent states)."""
    terminated: Any
    """Whether the last of them terminated the episode."""
    truncated: Any
    began: float
    """When the first of them ended, by `time.perf_counter`."""
    ended: float

    def __len__(self) -> int:
        return len(self.rewards)


def fill(episode: Any, steps: Steps, *, to_numpy: bool) -> None:
    """Put steps into an episode of lists, as so many calls of ``add_env_step`` would.

    Args:
        episode: begun; holds nothing but its first observation, and what it looks back to.
        steps: at least one.
        to_numpy: make arrays of what it holds then, as ``to_numpy`` does.
    """
    put = _joined if to_numpy else _extended
    put(episode.observations, steps.observations)
    put(episode.actions, steps.actions)
    put(episode.rewards, steps.rewards)
    episode.infos.data.extend(steps.infos)
    for name, values in steps.outputs.items():
        held = episode.extra_model_outputs.get(name)
        if held is None:
            held = episode.extra_model_outputs[name] = buffer_of([], 0, None, None)
        put(held, values)
    episode.t += len(steps)
    episode.is_terminated, episode.is_truncated = steps.terminated, steps.truncated
    episode._last_added_infos = steps.infos[-1]
    episode._last_step_time = steps.ended
    if episode._start_time is None:
        episode._start_time = steps.began
    if len(steps.outputs) != len(episode.extra_model_outputs):
        # What a module gave before and gives no more: RLlib refuses that too.
        episode.validate()


class NewEpisodes:
    """Makes episodes with nothing in them, as RLlib's constructor does.

    Args:
        observation_space: of one environment.
        action_space: likewise.
    """

    def __init__(self, observation_space: Any, action_space: Any) -> None:
        self._model: Any = SingleAgentEpisode(
            observation_space=observation_space, action_space=action_space
        )

    def make(self) -> Any:
        """Return one, with an id of its own."""
        result = copy.copy(self._model)
        result.id_ = uuid.uuid4().hex
        for name in ("observations", "infos", "actions", "rewards"):
            held = getattr(result, name)
            setattr(result, name, buffer_of([], 0, held._space, held._space_struct))
        result.extra_model_outputs, result._custom_data = {}, {}
        return result


def continued(episode: Any, steps: Steps | None, lookback: int) -> Any:
    """Return the episode that goes on where one is cut, as its ``cut`` does.

    Args:
        episode: of lists, with none of the steps in it yet.
        steps: what will be put into it, None for nothing.
        lookback: how many steps the other looks back to.
    """
    if steps is None:
        return episode.cut(len_lookback_buffer=lookback)
    result: Any = SingleAgentEpisode.__new__(SingleAgentEpisode)
    for name in ("id_", "agent_id", "module_id", "multi_agent_episode_id"):
        setattr(result, name, getattr(episode, name))
    known = min(lookback, len(episode.rewards.data) + len(steps))

    def last(buffer: Any, values: Any, count: int) -> Any:
        data = last_of(buffer.data if buffer is not None else [], values, count)
        # Not by its truth, which is its length.
        known_space = buffer is not None
        space, struct = (buffer._space, buffer._space_struct) if known_space else (None, None)
        return buffer_of(data, min(known, len(data)), space, struct)

    result.observations = last(episode.observations, steps.observations, lookback + 1)
    result.infos = last(episode.infos, steps.infos, lookback + 1)
    result.actions = last(episode.actions, steps.actions, lookback)
    result.rewards = last(episode.rewards, steps.rewards, lookback)
    held = episode.extra_model_outputs
    result.extra_model_outputs = {
        name: last(held.get(name), steps.outputs[name], lookback)
        for name in {**held, **steps.outputs}
        if name in steps.outputs
    }
    result._observation_space, result._action_space = (
        episode._observation_space,
        episode._action_space,
    )
    result.is_terminated = result.is_truncated = False
    result.t = result.t_started = episode.t + len(steps)
    result._custom_data = copy.deepcopy(episode.custom_data) if episode.custom_data else {}
    result._start_time = result._last_step_time = None
    result._last_added_observation = result._last_added_infos = None
    return result


def buffer_of(data: Any, lookback: int, space: Any, struct: Any) -> Any:
    """Return a buffer of an episode that goes on, as RLlib's constructor does.

    Args:
        data: what it holds.
        lookback: how much of that is only looked back on.
        space: of an item, None for none.
        struct: the space's structure.
    """
    # Its constructor works out the space's structure each time, which costs more than the rest.
    result: Any = InfiniteLookbackBuffer.__new__(InfiniteLookbackBuffer)
    result.data, result.lookback, result.finalized = data, lookback, False
    result._space, result._space_struct = space, struct
    return result


def _extended(buffer: Any, values: Any) -> None:
    buffer.data.extend(items_of(values))


def _joined(buffer: Any, values: Any) -> None:
    if isinstance(values, np.ndarray):
        buffer.data = with_first(buffer.data, values)
    elif buffer.data:
        first = batch(buffer.data)
        buffer.data = tree.map_structure(lambda *parts: np.concatenate(parts), first, values)
    else:
        buffer.data = tree.map_structure(np.array, values)
    buffer.finalized = True


def with_first(items: Sequence[Any], values: Array) -> Array:
    """Return an array of items and values, its memory its own."""
    count = len(items)
    if not all(item.dtype == values.dtype for item in items if hasattr(item, "dtype")):
        joined: Array = batch([*items, *values])
        return joined
    result = np.empty((count + len(values), *values.shape[1:]), values.dtype)
    for place, item in enumerate(items):
        result[place] = item
    result[count:] = values
    return result


def items_of(values: Any) -> list[Any]:
    """Return arrays over time as a list of what each step has.

    >>> items_of({"h": np.array([[1], [2]])})
    [{'h': array([1])}, {'h': array([2])}]
    """
    if isinstance(values, np.ndarray):
        return list(values)
    leaves = tree.flatten(values)
    return [tree.unflatten_as(values, list(parts)) for parts in zip(*leaves, strict=True)]


def last_of(items: list[Any], values: Any, count: int) -> list[Any]:
    """Return the last ``count`` of items and values, those of arrays in memory of their own."""
    if not count:
        return []
    if isinstance(values, list):
        return [*items, *values][-count:]
    if isinstance(values, np.ndarray):
        found = list(values[-count:].copy())
    else:
        found = items_of(tree.map_structure(lambda leaf: leaf[-count:].copy(), values))
    lacking = count - len(found)
    return [*items[-lacking:], *found] if lacking else found
