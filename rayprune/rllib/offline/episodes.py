"""Recorded steps as whole episodes, one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from ray.rllib.core.columns import Columns

from rayprune.errors import InputError

Array = npt.NDArray[Any]


def whole_episodes(
    columns: Mapping[str, Array], schema: Mapping[str, str], source: object
) -> Array:
    """Return the order of rows in which episodes lie one after the other, each from its begin.

    Args:
        columns: of a file.
        schema: the file's names of RLlib's columns.
        source: where they are from, for messages.

    Raises:
        InputError: an episode has no end, or a step is missing.
    """
    count, ids = len(columns[schema[Columns.REWARDS]]), columns.get(schema[Columns.EPS_ID])
    order = np.arange(count)
    if ids is not None and schema[Columns.T] in columns:
        times = columns[schema[Columns.T]]
        order = np.lexsort((times, _numbered(ids)))
    ends = ends_of(columns, schema)[order]
    follows = ids is None or np.all(ids[order][1:] == ids[order][:-1], where=~ends[:-1])
    if not count or not ends[-1] or not follows:
        raise InputError(
            f"{source} holds an episode without an end, but what a state is worth is told by "
            "all that follows. Record whole episodes: the last step of each is `terminateds` or "
            "`truncateds`."
        )
    return order


def ends_of(columns: Mapping[str, Array], schema: Mapping[str, str]) -> Array:
    """Return which steps are the last of their episodes, a bool for each."""
    ends = columns[schema[Columns.TERMINATEDS]].astype(bool)
    cut = columns.get(schema[Columns.TRUNCATEDS])
    return ends if cut is None else ends | cut.astype(bool)


def _numbered(ids: Array) -> Array:
    """Return for each row which episode's it is, counted from 0 as they first occur."""
    _, first, inverse = np.unique(ids.astype(str), return_index=True, return_inverse=True)
    ranks = np.empty(len(first), dtype=int)
    ranks[np.argsort(first)] = np.arange(len(first))
    numbered: Array = ranks[inverse.reshape(-1)]
    return numbered
