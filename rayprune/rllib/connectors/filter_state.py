"""Where the statistics of what is normalised go: EnvRunners, checkpoints, and from run to run."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, Final

import numpy as np
import ray
from ray.rllib.core import COMPONENT_ENV_RUNNER, COMPONENT_ENV_TO_MODULE_CONNECTOR

from rayprune.errors import CheckpointError
from rayprune.rllib.connectors.filters import (
    ObservationFilter,
    RewardFilter,
    moments_of_rllib,
)
from rayprune.rllib.connectors.pipelines import pieces_of
from rayprune.tracking.reporter import tell

MEAN_STD: Final = "MeanStdFilter"
_STATE_FILE: Final = "state.pkl"
_PLACES: Final = (
    Path(COMPONENT_ENV_RUNNER, COMPONENT_ENV_TO_MODULE_CONNECTOR),
    Path(COMPONENT_ENV_TO_MODULE_CONNECTOR),
)


def statistics_of(algorithm: Any) -> list[Any]:
    """Return the connectors that hold an algorithm's statistics, in the driver's process."""
    runner = algorithm.env_runner
    pipeline = algorithm.env_to_module_connector if runner is None else runner._env_to_module
    return [] if pipeline is None else _running(pipeline)


def gather(algorithm: Any) -> None:
    """Let the driver know all that EnvRunners have seen, so that a checkpoint holds it."""
    group = algorithm.env_runner_group
    if group is not None and group.num_healthy_remote_workers() and statistics_of(algorithm):
        group.sync_env_runner_states(
            config=algorithm.config,
            env_to_module=algorithm.env_to_module_connector,
            module_to_env=algorithm.module_to_env_connector,
        )


def consolidate(algorithm: Any) -> None:
    """Begin a new epoch of the statistics everywhere, as a restored algorithm does."""
    for connector in statistics_of(algorithm):
        connector.consolidate()
    _tell(algorithm)


def freeze(algorithm: Any) -> None:
    """Let an algorithm's statistics stay as they are, for good."""
    if any(not connector.shares.frozen for connector in statistics_of(algorithm)):
        gather(algorithm)
        for connector in statistics_of(algorithm):
            if isinstance(connector, ObservationFilter):
                connector.freeze()
        _tell(algorithm)


def take_statistics(algorithm: Any, directory: Path, *, partly: bool, whose: str = "") -> bool:
    """Take over the statistics of the policy that a run starts from.

    Args:
        algorithm: built, not yet trained.
        directory: an Algorithm's checkpoint.
        partly: the policy may be of another task, whose statistics stay there if they don't fit;
            then it is told, and no error, if only one of the two normalises.
        whose: a word for it, in errors.

    Returns:
        Whether they are frozen, for a teacher's sake.

    Raises:
        CheckpointError: one of the two normalises observations, and the other doesn't; or there is
            a teacher that sees them normalised otherwise.
    """
    mismatch = _mismatch(algorithm, directory, whose)
    if mismatch is not None:
        if not partly:
            raise CheckpointError(mismatch)
        # Of another task: the rest of its network may be worth having.
        tell(mismatch)
    own, state = _observed(algorithm), filter_state(directory)
    if own and state is not None:
        shares = own[0].shares
        if tuple(state["base"][1].shape) != shares.shape:
            return False
        taught, held = bool(shares.frozen), shares.total
        shares.set_state(state)
        if taught and not np.array_equal(held.mean, shares.total.mean):
            raise CheckpointError(
                f"checkpoint {str(directory)!r} and the teacher normalise observations by other "
                "statistics, and the two see the same batches. Say `pruning.distillation.from: "
                "start`, or leave `start_from` out."
            )
        shares.frozen = taught
        _tell(algorithm)
        return taught
    return False


def check_statistics(algorithm: Any, directory: Path, *, whose: str = "") -> None:
    """Raise CheckpointError where only one of an algorithm and a checkpoint normalises.

    Args:
        algorithm: built.
        directory: an Algorithm's checkpoint.
        whose: a word for it.
    """
    mismatch = _mismatch(algorithm, directory, whose)
    if mismatch is not None:
        raise CheckpointError(mismatch)


def _mismatch(algorithm: Any, directory: Path, whose: str) -> str | None:
    own, state = _observed(algorithm), filter_state(directory)
    if bool(own) == (state is not None):
        return None
    there, here = ("with", "without") if state is not None else ("without", "with")
    return (
        f"{whose}checkpoint {str(directory)!r} was trained {there} normalised observations, "
        f"and this run is {here} them: its policy would see what it never saw. "
        + (
            "Set `rllib.env_runners.observation_filter: MeanStdFilter`."
            if state is not None
            else "Leave `rllib.env_runners.observation_filter` out."
        )
    )


def _observed(algorithm: Any) -> list[Any]:
    return [c for c in statistics_of(algorithm) if isinstance(c, ObservationFilter)]


def filter_state(directory: Path) -> dict[str, Any] | None:
    """Return the observation statistics in a checkpoint, in our form, None where it has none."""
    for place in _PLACES:
        for path in (directory / place).glob(f"**/{ObservationFilter.__name__}/{_STATE_FILE}"):
            held: dict[str, Any] = _unpickled(path)
            return held
        for path in (directory / place).glob(f"**/{MEAN_STD}/{_STATE_FILE}"):
            moments = moments_of_rllib(_unpickled(path))
            if moments is not None:
                base = (moments.count, moments.mean, moments.squares)
                return {"epoch": 0, "frozen": False, "base": base, "parts": {}}
    return None


def _unpickled(path: Path) -> Any:
    with path.open("rb") as file:
        return pickle.load(file)


def _running(pipeline: Any) -> list[Any]:
    return [p for p in pieces_of(pipeline) if isinstance(p, (ObservationFilter, RewardFilter))]


def _tell(algorithm: Any) -> None:
    """Give all remote EnvRunners the driver's statistics, and wait until they have them."""
    held = statistics_of(algorithm)
    group = algorithm.env_runner_group
    if not held or group is None:
        return
    states = ray.put({type(connector).__name__: connector.get_state() for connector in held})

    def take(runner: Any) -> None:
        for name, state in ray.get(states).items():
            for connector in _running(runner._env_to_module):
                if type(connector).__name__ == name:
                    connector.set_state(state)

    group.foreach_env_runner(take, local_env_runner=False)
