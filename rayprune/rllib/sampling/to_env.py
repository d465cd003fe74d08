"""From the module's outputs to the environment's actions, without episodes; see `to_module`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.connectors.common import TensorToNumpy
from ray.rllib.connectors.module_to_env import (
    GetActions,
    ListifyDataForVectorEnv,
    NormalizeAndClipActions,
    RemoveSingleTsTimeRankFromBatch,
    UnBatchToIndividualItems,
)
from ray.rllib.core.columns import Columns
from ray.rllib.utils.numpy import convert_to_numpy

from rayprune.rllib.connectors.observations import FitActions
from rayprune.rllib.connectors.pipelines import pieces_of
from rayprune.rllib.sampling.distributions import draw_of
from rayprune.rllib.sampling.episodes import Array

Fit: TypeAlias = Callable[[Array], Array]

_FIRST: Final = (
    GetActions,
    TensorToNumpy,
    UnBatchToIndividualItems,
    RemoveSingleTsTimeRankFromBatch,
)
_LAST: Final = (NormalizeAndClipActions, ListifyDataForVectorEnv)
_REDUCED: Final = {
    np.dtype(given): np.dtype(kept)
    for given, kept in (("float64", "float32"), ("float16", "float32"), ("int64", "int32"))
}
"""What RLlib makes of a module's numbers before it stores them."""
_FLAT: Final = (gym.spaces.Discrete, gym.spaces.MultiDiscrete, gym.spaces.Box)


class ToEnv:
    """A pipeline's work on arrays.

    Args:
        pipeline: an EnvRunner's; `reason_against` it is empty.
        module: which acts.
        copies: the module may write into its outputs later.
    """

    def __init__(self, pipeline: Any, module: Any, *, copies: bool) -> None:
        pieces = pieces_of(pipeline)
        self._get_actions = pieces[0]
        own = next((piece for piece in pieces if isinstance(piece, FitActions)), None)
        self._fit = _fitting(pieces[-2], own)
        self._module, self._copies = module, copies
        self._has_time = module.is_stateful()

    def __call__(self, outputs: dict[str, Any], *, explore: bool) -> tuple[Array, Array]:
        """Make arrays of a module's outputs, in place, and take the actions out.

        Args:
            outputs: tensors, for all environments.
            explore: whether to draw the actions; else the likeliest are taken.

        Returns:
            The module's actions, and the environment's.
        """
        self._add_actions(outputs, explore=explore)
        for name, values in outputs.items():
            outputs[name] = self._array(values)
            if self._has_time and name != Columns.STATE_OUT:
                outputs[name] = np.squeeze(outputs[name], axis=1)
        actions = outputs.pop(Columns.ACTIONS)
        # Not the same array: an environment may write into its own.
        return actions, self._fit(actions)

    def _add_actions(self, outputs: dict[str, Any], *, explore: bool) -> None:
        inputs = outputs.get(Columns.ACTION_DIST_INPUTS)
        if Columns.ACTIONS in outputs or inputs is None:
            return
        distribution = self._module.get_exploration_action_dist_cls()
        draw = draw_of(distribution) if explore and Columns.ACTION_LOGP not in outputs else None
        if draw is None:
            self._get_actions._get_actions(outputs, self._module, explore)
        else:
            outputs[Columns.ACTIONS], outputs[Columns.ACTION_LOGP] = draw(inputs)

    def _array(self, values: Any) -> Any:
        if not isinstance(values, torch.Tensor) or not values.dim():
            return convert_to_numpy(values)
        array = values.numpy(force=True)
        reduced = _REDUCED.get(array.dtype)
        return (
            array if reduced is None and not self._copies else array.astype(reduced or array.dtype)
        )


def _fitting(bounds: Any, fit: FitActions | None) -> Fit:
    """Return what makes the environments' actions of the module's."""
    space = bounds._action_space_struct
    if not (bounds.normalize_actions or bounds.clip_actions):
        return np.copy if fit is None else fit.fit_all
    if not isinstance(space, gym.spaces.Box):
        return np.copy
    low, high = space.low, space.high
    if not bounds.normalize_actions:
        return lambda actions: actions.clip(low, high)
    if not (np.all(space.bounded_below) and np.all(space.bounded_above)):
        return np.copy
    if np.issubdtype(space.dtype, np.integer):
        return lambda actions: low + actions
    span = high - low
    # In RLlib's order of operations, to the last bit.
    return lambda actions: (low + (actions + 1.0) * span / 2.0).clip(low, high)


def reason_against(pipeline: Any, space: Any) -> str:
    """Return why a pipeline is not done on arrays, in words; empty where it is.

    Args:
        pipeline: an EnvRunner's.
        space: the environment's action space.
    """
    pieces = pieces_of(pipeline)
    kinds = tuple(map(type, pieces))
    if kinds[: len(_FIRST)] != _FIRST or kinds[-len(_LAST) :] != _LAST:
        return "RLlib's default connectors to the environment are not all there"
    own = pieces[len(_FIRST) : -len(_LAST)]
    for piece in own:
        if type(piece) is not FitActions:
            return f"the connector {type(piece).__qualname__} looks at episodes"
    if len(own) > 1 or type(space) not in _FLAT:
        return "actions are nested"
    return ""
