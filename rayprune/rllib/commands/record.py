"""``rayprune record``: a policy's episodes as data for offline algorithms.

One Parquet row a step, in the columns that RLlib's offline readers take by default, so that neither
compression nor pickles are needed to read them elsewhere. Observations are the environment's own,
before any connector.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ray.rllib.core.columns import Columns
from ray.rllib.env import INPUT_ENV_SINGLE_SPACES
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from rayprune.errors import InputError
from rayprune.policies.spaces import Space
from rayprune.rllib.checkpoints.barrier import reseed
from rayprune.rllib.connectors.encoding import is_nested
from rayprune.rllib.connectors.observations import renumber
from rayprune.rllib.evaluation.evaluator import Evaluator
from rayprune.rllib.experiment.algorithm_config import settings_of
from rayprune.statistics.intervals import summarise
from rayprune.tracking.record import prepare_out, storage_error

DATA_FILE = "episodes.parquet"


def record_episodes(
    checkpoint: Path, out: Path, *, episodes: int, seed: int, explore: bool
) -> dict[str, Any]:
    """Let a policy play and write what it did.

    Args:
        checkpoint: rayprune's, plain RLlib's, or a finished run's directory.
        out: a new folder, which ``rllib.offline_data.input_`` then names.
        episodes: how many.
        seed: of the environment and of the actions that are drawn.
        explore: draw actions as in training; else the greedy ones.

    Returns:
        What was recorded: ``env_steps`` and the ``returns``.

    Raises:
        InputError: no checkpoint, or observations that aren't vectors.
    """
    held = settings_of(checkpoint)
    evaluator = Evaluator(held.config)
    _, actions = evaluator.spaces[INPUT_ENV_SINGLE_SPACES]
    try:
        _check_observations(evaluator)
        evaluator.load_checkpoint(held.directory)
        prepare_out(out, resume=False)
        reseed(seed)
        played = evaluator.play(episodes, seed, explore=explore)
    finally:
        evaluator.close()
    _write(played, actions, out / DATA_FILE)
    return {
        "out": str(out),
        "env_steps": sum(len(episode) for episode in played),
        "returns": summarise([float(episode.get_return()) for episode in played]),
    }


def _check_observations(evaluator: Evaluator) -> None:
    space, _ = evaluator.spaces[INPUT_ENV_SINGLE_SPACES]
    if is_nested(space) or len(space.shape) > 1:
        raise InputError(
            f"Only vectors can be recorded, but observations are {space}. Record with RLlib's own "
            "`offline_data(output=..., output_write_episodes=True)`."
        )


def _write(episodes: list[SingleAgentEpisode], actions: Space, path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    rows = [
        row for number, episode in enumerate(episodes) for row in _rows(number, episode, actions)
    ]
    try:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), str(path))
    except OSError as error:
        raise storage_error(error, path) from error


def _rows(number: int, episode: SingleAgentEpisode, actions: Space) -> list[dict[str, Any]]:
    observations, steps = episode.get_observations(), len(episode)
    return [
        {
            Columns.EPS_ID: str(number),
            Columns.T: step,
            Columns.OBS: _plain(observations[step]),
            # Choices as the environment numbers them; continuous ones as the module means them.
            Columns.ACTIONS: _plain(renumber(action, actions, by=1)),
            Columns.REWARDS: float(reward),
            Columns.NEXT_OBS: _plain(observations[step + 1]),
            Columns.TERMINATEDS: bool(episode.is_terminated and step == steps - 1),
            Columns.TRUNCATEDS: bool(episode.is_truncated and step == steps - 1),
        }
        for step, (action, reward) in enumerate(
            zip(episode.get_actions(), episode.get_rewards(), strict=True)
        )
    ]


def _plain(value: Any) -> Any:
    return np.asarray(value).tolist()
