"""All faults of an experiment, found together before a run starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from rayprune.algorithms import is_offline
from rayprune.config import (
    ExperimentConfig,
    experiment_faults,
    load_raw,
    named_checkpoints,
)
from rayprune.errors import CheckpointError, ConfigError, StorageError
from rayprune.rllib.checkpoints.files import fetch
from rayprune.rllib.experiment.network_checks import network_faults
from rayprune.rllib.experiment.recipe_inputs import with_known_inputs
from rayprune.rllib.experiment.rllib_checks import rllib_faults

_NETWORK_KEYS: Final = (
    "algorithm",
    "env",
    "env_config",
    "imports",
    "normalise",
    "pruning",
    "quantise",
    "rllib",
)


def load_checked(
    path: Path, overrides: Sequence[str] = (), seed: int | None = None
) -> ExperimentConfig:
    """Read an experiment's YAML and report the faults of all its parts together.

    Args:
        path: the YAML file.
        overrides: ``KEY=VALUE`` strings of ``--set``.
        seed: replaces the file's seed.

    Raises:
        ConfigError: all faults of the file, RLlib's blocks and the environment included.
    """
    raw, faults = load_raw(path, overrides, seed)
    more, experiment = checked(with_known_inputs(raw))
    faults += more
    if faults or experiment is None:
        raise ConfigError(faults)
    return experiment


def experiment_parts_faults(raw: Mapping[str, Any]) -> list[str]:
    """Return the faults of an experiment's nested mapping, those that only RLlib shows included."""
    faults, _ = checked(raw)
    return faults


def checked(raw: Mapping[str, Any]) -> tuple[list[str], ExperimentConfig | None]:
    """Return all faults of an experiment's nested mapping, and the experiment if it can be read."""
    faults, experiment = experiment_faults(raw)
    faults += rllib_faults(raw)
    if experiment is not None:
        faults += checkpoint_faults(experiment)
    network = _network_part(raw) if faults else experiment
    if network is not None:
        faults += network_faults(network)
    return faults, experiment


def _network_part(raw: Mapping[str, Any]) -> ExperimentConfig | None:
    """Return what decides on the network, if that part is sound in spite of faults elsewhere."""
    part = {key: raw[key] for key in _NETWORK_KEYS if key in raw}
    # The horizon only dates the schedule, which plays no part in what a network can take.
    unit = "updates" if is_offline(raw.get("algorithm")) else "env_steps"
    faults, network = experiment_faults({"name": "name", "stop": {unit: 1_000_000}, **part})
    return None if faults or rllib_faults(raw) else network


def checkpoint_faults(experiment: ExperimentConfig) -> list[str]:
    """Return the faults of the checkpoints that an experiment names."""
    faults = []
    for field, path in named_checkpoints(experiment).items():
        try:
            fetch(path, module_will_do=field == "start_from")
        except (CheckpointError, StorageError) as error:
            faults.append(f"`{field}`: {error}")
    return faults
