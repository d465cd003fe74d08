"""From a vector environment's observations to the module's inputs, without episodes.

What RLlib's env-to-module connectors do one episode at a time is done here for all environments at
once, where the connectors are RLlib's default ones and ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import torch
import tree
from ray.rllib.connectors.common import (
    AddObservationsFromEpisodesToBatch,
    AddStatesFromEpisodesToBatch,
    AddTimeDimToBatchAndZeroPad,
    BatchIndividualItems,
    NumpyToTensor,
)
from ray.rllib.core.columns import Columns
from ray.rllib.utils.numpy import convert_to_numpy

from rayprune.rllib.connectors.filters import ObservationFilter, RewardFilter
from rayprune.rllib.connectors.observations import EncodeObservations
from rayprune.rllib.connectors.pipelines import pieces_of
from rayprune.rllib.sampling.episodes import Array

Inputs: TypeAlias = dict[str, Any]

_DEFAULTS: Final = (
    AddObservationsFromEpisodesToBatch,
    AddTimeDimToBatchAndZeroPad,
    AddStatesFromEpisodesToBatch,
    BatchIndividualItems,
    NumpyToTensor,
)
_OURS: Final = (EncodeObservations, ObservationFilter, RewardFilter)


class ToModule:
    """A pipeline's work on arrays.

    Args:
        pipeline: an EnvRunner's; `reason_against` it is empty.
        module: which acts.
        device: where its inputs go.
        copies: give the module inputs of its own, for it may write into them.
    """

    def __init__(self, pipeline: Any, module: Any, device: Any, *, copies: bool) -> None:
        found = {type(piece): piece for piece in pieces_of(pipeline)}
        self._encoder: Any = found.get(EncodeObservations)
        self._filter: Any = found.get(ObservationFilter)
        self._device, self._copies = device, copies
        self._is_here = torch.device(device).type == "cpu"
        self._initial = (
            convert_to_numpy(module.get_initial_state()) if module.is_stateful() else None
        )

    @property
    def space(self) -> Any:
        """Of what stands in the episodes, None where that is what the environment gave."""
        if self._filter is not None and self._filter.rewrite:
            return self._filter.observation_space
        return None if self._encoder is None else self._encoder.encoding.space

    def rows(self, observations: Any) -> Array:
        """Return what stands in the episodes of a vector environment's observations.

        Args:
            observations: as it gave them, for all environments.

        Returns:
            Shape ``(envs, *shape)``.
        """
        rows: Array
        if self._encoder is not None:
            rows = self._encoder.encoding.encode_all(observations)
        else:
            rows = np.asarray(observations)
        if self._filter is not None and self._filter.rewrite:
            rows = self._filter.normalised(rows)
        return rows

    def inputs(self, rows: Array, states: Any = None, begun: Sequence[int] = ()) -> Inputs:
        """Return the module's inputs.

        Args:
            rows: see `rows`.
            states: the recurrent states that the module gave last, for all environments.
            begun: environments whose episode has only just begun.
        """
        seen = rows
        if self._filter is not None and not self._filter.rewrite:
            seen = self._filter.normalised(rows)
        if self._initial is None:
            return {Columns.OBS: self._tensor(seen)}
        return {
            Columns.OBS: self._tensor(seen[:, np.newaxis]),
            Columns.STATE_IN: self._states(states, begun),
        }

    def _states(self, states: Any, begun: Sequence[int]) -> Any:
        def state(initial: Array, last: Array) -> torch.Tensor:
            # The last ones stand in the episodes too.
            values = last.copy()
            values[list(begun)] = initial
            return self._tensor(values)

        return tree.map_structure(state, self._initial, states)

    def _tensor(self, values: Array) -> torch.Tensor:
        if values.dtype == np.float64:
            values = values.astype(np.float32)
        elif self._copies or not values.flags.writeable:
            values = values.copy()
        tensor = torch.from_numpy(values)
        return tensor if self._is_here else tensor.to(self._device)


def reason_against(pipeline: Any, space: Any) -> str:
    """Return why a pipeline is not done on arrays, in words; empty where it is.

    Args:
        pipeline: an EnvRunner's.
        space: the environment's observation space.
    """
    pieces = pieces_of(pipeline)
    own, defaults = pieces[: -len(_DEFAULTS)], pieces[-len(_DEFAULTS) :]
    if tuple(map(type, defaults)) != _DEFAULTS:
        return "RLlib's default connectors to the module are not all there"
    for piece in own:
        if type(piece) not in _OURS:
            return f"the connector {type(piece).__qualname__} looks at episodes"
    kinds = [type(piece) for piece in own]
    if kinds != [kind for kind in _OURS if kind in kinds]:
        return "connectors of ours are there twice, or in an order of their own"
    if EncodeObservations not in kinds and (space is None or space.shape is None):
        return "the module reads nested observations"
    return ""
