"""Parquet files as columns, whole episodes, and what they earn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet
from ray.rllib.offline.offline_prelearner import SCHEMA

from rayprune.errors import InputError
from rayprune.rllib.offline.episodes import whole_episodes
from rayprune.rllib.offline.files import UnreadableError, read_steps
from rayprune.rllib.offline.returns import returns_to_go
from rayprune.rllib.offline.sources import sources_of
from tests.rllib.offline import recordings


def columns(ids: list[str], times: list[int], ends: list[bool]) -> dict[str, Any]:
    flags = np.array(ends)
    return {
        "eps_id": np.array(ids, dtype=object),
        "t": np.array(times),
        "rewards": np.ones(len(ids)),
        "terminateds": flags,
        "truncateds": np.zeros_like(flags),
    }


def test_rows_come_back_as_they_were_recorded(tmp_path: Path) -> None:
    rows = recordings.steps("Pendulum-v1")
    (file,) = sources_of([str(recordings.write(rows, tmp_path / "data"))])
    assert file.size() > 0
    read = file.read(SCHEMA)
    assert set(read) == set(rows[0])
    for name, column in read.items():
        assert np.array_equal(column, np.array([row[name] for row in rows])), name
    assert (read["obs"].shape, read["actions"].shape) == ((60, 3), (60, 1))


@pytest.mark.parametrize(
    ("column", "told"),
    [
        (pyarrow.array([[1.0, 2.0], [3.0]]), "rows of column 'obs' differ in shape"),
        (pyarrow.array([None, 1.0]), "in some row"),
        (pyarrow.array([{"a": 1}, {"a": 2}]), "column 'obs' holds struct"),
    ],
)
def test_what_is_no_table_of_numbers_is_told(tmp_path: Path, column: Any, told: str) -> None:
    parquet.write_table(pyarrow.table({"obs": column}), str(tmp_path / "a.parquet"))
    with pytest.raises(UnreadableError, match=told):
        read_steps(tmp_path / "a.parquet", SCHEMA)


def test_a_folder_without_files_is_told(tmp_path: Path) -> None:
    with pytest.raises(UnreadableError, match="no Parquet file"):
        sources_of(str(tmp_path))


def test_episodes_are_laid_one_after_the_other_each_in_its_order(tmp_path: Path) -> None:
    mixed = columns(["b", "a", "b", "a"], [1, 1, 0, 0], [True, True, False, False])
    assert whole_episodes(mixed, SCHEMA, tmp_path).tolist() == [2, 0, 3, 1]


@pytest.mark.parametrize(
    ("ids", "ends"), [(["a", "a"], [True, False]), (["a", "b"], [False, True])]
)
def test_an_episode_without_an_end_is_refused(
    tmp_path: Path, ids: list[str], ends: list[bool]
) -> None:
    with pytest.raises(InputError, match="holds an episode without an end"):
        whole_episodes(columns(ids, [0, 1], ends), SCHEMA, tmp_path)


@given(st.lists(st.tuples(st.floats(-10, 10), st.booleans()), min_size=1, max_size=20))
def test_returns_are_the_discounted_sums_of_what_follows(steps: list[tuple[float, bool]]) -> None:
    rewards = np.array([reward for reward, _ in steps])
    ends = np.array([end for _, end in steps])
    slow = []
    for first in range(len(steps)):
        last = next((i for i in range(first, len(steps)) if ends[i]), len(steps) - 1)
        slow.append(sum(0.9 ** (i - first) * rewards[i] for i in range(first, last + 1)))
    assert np.allclose(returns_to_go(rewards, ends, 0.9), slow)
