"""Columns of a train batch, n-step returns among them, as RLlib's Learner connectors make them."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from ray.rllib.connectors.common import AddObservationsFromEpisodesToBatch, BatchIndividualItems
from ray.rllib.connectors.learner import (
    AddColumnsFromEpisodesToTrainBatch,
    AddNextObservationsFromEpisodesToTrainBatch,
)
from ray.rllib.core.columns import Columns as Names
from scipy.signal import lfilter

from rayprune.rllib.replay.transitions import Array, Rows, Transitions

Columns = dict[str, Array]
"""By RLlib's names, in its order, each of shape ``(batch, ...)``."""

NStep = int | tuple[int, int]
"""Steps between the two observations of a transition, or a range ``(low, high)`` without high."""


def columns_of(episodes: list[Any]) -> Columns:
    """Return the columns of sampled episodes, made by RLlib's own connectors: exact, and slow.

    They are those that DQN's and SAC's default pipelines have, as far as the batch is still NumPy.

    Args:
        episodes: what ``sample(sample_episodes=True)`` returns; their ids get a suffix, as in
            RLlib's Learner.
    """
    batch: dict[str, Any] = {}
    for piece in _pieces():
        batch = piece(rl_module=None, batch=batch, episodes=episodes, shared_data={})
    return {name: _plain(column) for name, column in batch.items()}


def gather(steps: Transitions, path: Rows, n_steps: Array | None, gamma: float) -> Columns:
    """Return the columns of transitions that lie in arrays.

    Args:
        steps: the arrays.
        path: rows of each transition's steps, one after the other, and of the observation behind
            them, shape ``(longest n-step + 1, transitions)``, see `Transitions.walk`.
        n_steps: how many of these each transition takes, int64; None if all.
        gamma: discount of the rewards.
    """
    if n_steps is None:
        last, end = path[-2], path[-1]
    else:
        which = np.arange(len(n_steps))
        last, end = path[n_steps - 1, which], path[n_steps, which]
    return {
        Names.OBS: steps.observations.take(path[0], axis=0),
        Names.NEXT_OBS: steps.observations.take(end, axis=0),
        Names.ACTIONS: steps.actions.take(path[0], axis=0),
        Names.REWARDS: _returns(steps.rewards[path[:-1]], n_steps, gamma),
        Names.TERMINATEDS: steps.terminateds[last],
        Names.TRUNCATEDS: steps.truncateds[last],
    }


def _returns(rewards: Array, n_steps: Array | None, gamma: float) -> Array:
    """Return discounted sums over the first axis, float64."""
    if len(rewards) == 1:
        # RLlib's filter adds to 0.0, which -0.0 doesn't survive.
        single: Array = rewards[0].astype(np.float64) + 0.0
        return single
    if n_steps is not None:
        rewards[np.arange(len(rewards))[:, None] >= n_steps] = 0
    # The filter that RLlib applies to each transition. It begins with the last reward: zeros, for
    # what lies behind an n-step or an episode's end, change nothing.
    returns: Array = lfilter([1], [1, -gamma], rewards[::-1], axis=0)[-1]
    return returns


@cache
def _pieces() -> tuple[Any, ...]:
    """Return RLlib's connectors; none has a state, and making one takes a millisecond."""
    return (
        AddObservationsFromEpisodesToBatch(as_learner_connector=True),
        AddNextObservationsFromEpisodesToTrainBatch(),
        AddColumnsFromEpisodesToTrainBatch(),
        BatchIndividualItems(),
    )


def _plain(column: Any) -> Any:
    """Return an array without the class by which RLlib marks arrays that are batches."""
    return column.view(np.ndarray) if isinstance(column, np.ndarray) else column
