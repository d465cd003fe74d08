"""Where recorded steps are from: Parquet files, or Minari's datasets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from rayprune.rllib.offline.episodes import Array
from rayprune.rllib.offline.files import UnreadableError, parquet_files
from rayprune.rllib.offline.minari import SCHEME, MinariDataset


class Source(Protocol):
    """Some recorded steps; in messages it says which."""

    def size(self) -> int:
        """Return how many bytes they come to in memory, about."""

    def read(self, schema: Mapping[str, str]) -> dict[str, Array]:
        """Return their columns, a row a step.

        Args:
            schema: the names that RLlib's columns are to have.

        Raises:
            UnreadableError: they are no table of numbers.
        """


def sources_of(given: str | list[str]) -> list[Source]:
    """Return what ``input_`` names.

    Raises:
        UnreadableError: there is no such file, or it isn't on this machine.
        InputError: there is no such dataset.
    """
    found: list[Source] = []
    for name in [given] if isinstance(given, str) else given:
        if str(name).startswith(SCHEME):
            found.append(MinariDataset(str(name)))
        elif "://" in str(name):
            raise UnreadableError("it isn't on this machine's disks")
        else:
            found += parquet_files(str(name))
    return found
