"""Minari's datasets (minari.farama.org) as recorded steps: ``input_: [minari://ID]``.

Minari keeps them in ``~/.minari/datasets``, or where ``MINARI_DATASETS_PATH`` says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from gymnasium.spaces import Box, Discrete
from ray.rllib.core.columns import Columns

from rayprune.errors import InputError
from rayprune.extras import lacking, needs
from rayprune.rllib.offline.episodes import Array

SCHEME: Final = "minari://"
"""What an ``input_`` begins with that is a dataset's id."""


class MinariDataset:
    """A dataset on this machine.

    Args:
        name: its id behind `SCHEME`.

    Raises:
        InputError: it isn't there.
    """

    def __init__(self, name: str) -> None:
        self._id = name.removeprefix(SCHEME)
        for fault in minari_faults(name):
            raise InputError(fault)
        import minari

        self._dataset: Any = minari.load_dataset(self._id)

    def __str__(self) -> str:
        return f"Minari's {self._id!r}"

    def size(self) -> int:
        """Return how many bytes its steps come to."""
        spaces = self._dataset.observation_space, self._dataset.action_space
        numbers = 2 * int(np.prod(spaces[0].shape or 1)) + int(np.prod(spaces[1].shape or 1))
        return 8 * numbers * int(self._dataset.total_steps)

    def read(self, schema: Mapping[str, str]) -> dict[str, Array]:
        """Return its columns, a row a step, by RLlib's names.

        Raises:
            InputError: its spaces aren't vectors, images or choices.
        """
        for what in ("observation_space", "action_space"):
            space = getattr(self._dataset, what)
            if not isinstance(space, (Box, Discrete)):
                raise InputError(
                    f"{self} can't be learned from: its {what.replace('_', ' ')} is {space}. Take "
                    "a dataset of a Box or Discrete space."
                )
        columns: dict[str, list[Array]] = {}
        for episode in self._dataset.iterate_episodes():
            for name, column in _steps_of(episode):
                columns.setdefault(schema[name], []).append(column)
        return {name: np.concatenate(parts) for name, parts in columns.items()}


def minari_faults(name: str) -> Iterator[str]:
    """Yield why a dataset can't be read.

    Args:
        name: its id behind `SCHEME`.
    """
    own = name.removeprefix(SCHEME)
    if lacking("minari"):
        yield needs(f"`rllib.offline_data.input_` {name!r}", "minari") + "."
        return
    from minari.storage.datasets_root_dir import get_dataset_path

    if not own or not (Path(get_dataset_path(own)) / "data").is_dir():
        yield (
            f"`rllib.offline_data.input_` {name!r} must be a dataset of Minari's on this machine, "
            f"but there is none in {str(get_dataset_path())!r}. `minari download {own}` fetches "
            "those of its servers."
        )


def _steps_of(episode: Any) -> Iterator[tuple[str, Array]]:
    steps, seen = len(episode.rewards), np.asarray(episode.observations)
    terminated = np.asarray(episode.terminations, dtype=bool)
    # An episode of Minari's is whole, whether its last step says so or not.
    ends = np.arange(steps) == steps - 1
    yield Columns.EPS_ID, np.full(steps, str(episode.id), dtype=object)
    yield Columns.T, np.arange(steps)
    yield Columns.OBS, seen[:steps]
    yield Columns.NEXT_OBS, seen[1 : steps + 1]
    yield Columns.ACTIONS, np.asarray(episode.actions)
    yield Columns.REWARDS, np.asarray(episode.rewards, dtype=float)
    yield Columns.TERMINATEDS, terminated
    yield Columns.TRUNCATEDS, ends & ~terminated
