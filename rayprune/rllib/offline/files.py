"""Recorded steps as columns, from the Parquet files that ``rayprune record`` and RLlib write."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

Array = npt.NDArray[Any]

EPISODE: Final = "item"
"""The column of files that RLlib wrote with ``output_write_episodes``: a packed episode a row."""


class UnreadableError(Exception):
    """What is in a file is not a table of steps; says why in words."""


class ParquetFile:
    """One Parquet file.

    Args:
        path: of it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __str__(self) -> str:
        return repr(str(self._path))

    def size(self) -> int:
        """Return how many bytes it comes to when it is unpacked."""
        from pyarrow import parquet

        found = parquet.read_metadata(self._path)
        return sum(found.row_group(i).total_byte_size for i in range(found.num_row_groups))

    def read(self, schema: Mapping[str, str]) -> dict[str, Array]:
        """Return its columns; see `read_steps`."""
        return read_steps(self._path, schema)


def parquet_files(given: str) -> list[ParquetFile]:
    """Return a file, or those of a folder in their names' order.

    Raises:
        UnreadableError: there is none.
    """
    path = Path(given)
    found = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    if not found or not all(file.is_file() for file in found):
        raise UnreadableError(f"there is no Parquet file in {given!r}")
    return [ParquetFile(file) for file in found]


def read_steps(path: Path, schema: Mapping[str, str]) -> dict[str, Array]:
    """Return a file's columns, a row a step, each of shape ``(steps, ...)``.

    Args:
        path: of a Parquet file.
        schema: the file's names of RLlib's columns.

    Raises:
        UnreadableError: columns that aren't numbers, or whose rows differ in shape.
    """
    from pyarrow import parquet

    table = parquet.read_table(path)
    if EPISODE in table.column_names:
        return _unpacked(table.column(EPISODE).to_pylist(), schema)
    return {name: _array(name, table.column(name).combine_chunks()) for name in table.column_names}


def _array(name: str, column: Any) -> Array:
    import pyarrow
    from pyarrow import types

    if isinstance(column, pyarrow.ChunkedArray):
        column = pyarrow.concat_arrays(column.chunks)
    kind = column.type
    is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    if column.null_count or not (is_list or _is_plain(kind)):
        raise UnreadableError(f"column {name!r} holds {kind}, or nothing, in some row")
    if not is_list:
        flat: Array = column.to_numpy(zero_copy_only=False)
        return flat
    lengths = {len(row) for row in column}
    if len(lengths) != 1:
        raise UnreadableError(f"rows of column {name!r} differ in shape")
    inner = _array(name, column.flatten())
    return inner.reshape(len(column), lengths.pop(), *inner.shape[1:])


def _is_plain(kind: Any) -> bool:
    from pyarrow import types

    return any(
        holds(kind)
        for holds in (types.is_boolean, types.is_integer, types.is_floating, types.is_string)
    )


def _unpacked(rows: list[bytes], schema: Mapping[str, str]) -> dict[str, Array]:
    """Return the steps of RLlib's own episodes."""
    import msgpack
    import msgpack_numpy

    columns: dict[str, list[Any]] = {}
    for row in rows:
        state = msgpack.unpackb(row, object_hook=msgpack_numpy.decode)
        for name, values in _steps_of(SingleAgentEpisode.from_state(state)):
            columns.setdefault(schema[name], []).append(values)
    return {name: np.concatenate(parts) for name, parts in columns.items()}


def _steps_of(episode: SingleAgentEpisode) -> Iterator[tuple[str, Array]]:
    steps, seen = len(episode), np.asarray(episode.get_observations())
    if seen.dtype == object:
        raise UnreadableError("observations aren't arrays of numbers")
    ends = np.arange(steps) == steps - 1
    yield Columns.EPS_ID, np.full(steps, str(episode.id_), dtype=object)
    yield Columns.T, np.arange(steps)
    yield Columns.OBS, seen[:-1]
    yield Columns.NEXT_OBS, seen[1:]
    yield Columns.ACTIONS, np.asarray(episode.get_actions())
    yield Columns.REWARDS, np.asarray(episode.get_rewards(), dtype=float)
    yield Columns.TERMINATEDS, ends & bool(episode.is_terminated)
    yield Columns.TRUNCATEDS, ends & bool(episode.is_truncated)
