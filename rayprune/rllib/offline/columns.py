"""Recorded steps as a Learner takes them: RLlib's connectors applied once, to each step."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, Final

import torch
from ray.rllib.core.columns import Columns
from ray.rllib.evaluation.postprocessing import Postprocessing
from ray.rllib.offline.offline_prelearner import SCHEMA, OfflinePreLearner
from torch import Tensor

from rayprune.rllib.offline.draws import Modules
from rayprune.rllib.offline.episodes import Array, ends_of, whole_episodes
from rayprune.rllib.offline.files import UnreadableError
from rayprune.rllib.offline.returns import returns_to_go
from rayprune.rllib.offline.sources import Source

CHUNK: Final = 2000
"""Steps that go through the connectors together: each is an episode of its own there."""

_BOOTSTRAP: Final = ("AddOneTsToEpisodesAndTruncate", "GeneralAdvantageEstimation")
"""MARWIL's connectors that estimate what follows a step by the values of a module.

RLlib reads an episode of one step from each row, and gives its connectors the module of the first
update for good: what follows is then worth what a network thought before it learnt anything.
"""


def needs_returns(config: Any) -> bool:
    """Return whether an algorithm learns what a state earns from all that follows."""
    return _estimates(_pipeline(config, (config.observation_space, config.action_space)))


def steps_for(config: Any, spaces: Any, spec: Any, sources: list[Source]) -> Modules:
    """Return all recorded steps as an algorithm's Learner takes them.

    Args:
        config: the algorithm's.
        spaces: of observations and actions, as the connectors are to see them.
        spec: RLlib's, of the modules; connectors ask what they are.
        sources: of steps.

    Raises:
        UnreadableError: a source is no table of steps.
        InputError: MARWIL is given parts of episodes.
    """
    mapped = _Mapped(config, spaces, spec)
    return _joined([mapped(source) for source in sources])


class _Mapped:
    """Maps a source's rows to what a Learner takes.

    Args:
        config: the algorithm's.
        spaces: of observations and actions.
        spec: of the modules.
    """

    def __init__(self, config: Any, spaces: Any, spec: Any) -> None:
        self._config = config
        self._schema: dict[str, str] = SCHEMA | config.input_read_schema
        self._pipeline = _pipeline(config, spaces)
        self._needs_returns = _estimates(self._pipeline)
        for name in _BOOTSTRAP if self._needs_returns else ():
            self._pipeline.remove(name)
        # Building a network draws its weights; whoever draws next must not notice.
        with torch.random.fork_rng(devices=[]):
            self._module = spec.build()

    def __call__(self, source: Source) -> Modules:
        """Return a source's steps, in its order; MARWIL's episodes one after the other."""
        columns = source.read(self._schema)
        if not self._needs_returns:
            return self._connected(columns)
        order = whole_episodes(columns, self._schema, source)
        columns = {name: column[order] for name, column in columns.items()}
        rewards, ends = columns[self._schema[Columns.REWARDS]], ends_of(columns, self._schema)
        returns = torch.from_numpy(returns_to_go(rewards, ends, self._config.gamma)).float()
        steps = self._connected(columns)
        return {mid: {**own, Postprocessing.VALUE_TARGETS: returns} for mid, own in steps.items()}

    def _connected(self, columns: Mapping[str, Array]) -> Modules:
        count = len(columns[self._schema[Columns.REWARDS]])
        chunks = [
            {name: column[start : start + CHUNK] for name, column in columns.items()}
            for start in range(0, count, CHUNK)
        ]
        return _joined([self._chunk(chunk) for chunk in chunks])

    def _chunk(self, rows: Mapping[str, Array]) -> Modules:
        # All that RLlib's method asks of its object.
        reader: Any = SimpleNamespace(config=self._config)
        episodes = OfflinePreLearner._map_to_episodes(reader, rows)["episodes"]  # type: ignore[arg-type]
        batch = self._pipeline(
            rl_module=self._module, batch={}, episodes=episodes, shared_data={}, metrics=None
        )
        return {module_id: _tensors(own, len(episodes)) for module_id, own in batch.items()}


def _pipeline(config: Any, spaces: Any) -> Any:
    return config.build_learner_connector(
        input_observation_space=spaces[0], input_action_space=spaces[1]
    )


def _estimates(pipeline: Any) -> bool:
    held = [type(piece).__name__ for piece in pipeline.connectors]
    return all(name in held for name in _BOOTSTRAP)


def _tensors(columns: Mapping[str, Any], count: int) -> dict[str, Tensor]:
    """Return the columns that are tensors of a row a step."""
    if isinstance(columns[Columns.OBS], Mapping):
        raise UnreadableError("observations are nested")
    return {
        name: column
        for name, column in columns.items()
        if isinstance(column, Tensor) and column.dim() and len(column) == count
    }


def _joined(parts: list[Modules]) -> Modules:
    """Return the steps of several as those of one."""
    return {
        module_id: {name: torch.cat([part[module_id][name] for part in parts]) for name in own}
        for module_id, own in parts[0].items()
    }
