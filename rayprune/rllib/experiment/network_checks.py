"""Faults that only show once an environment and a network are built: spaces, names, reach."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Final

from gymnasium.error import DependencyNotInstalled

from rayprune.config import (
    ExperimentConfig,
)
from rayprune.errors import ConfigError, EnvError
from rayprune.extras import extra_for, pip_line
from rayprune.pruning.config import PruningConfig
from rayprune.pruning.pruner import Pruner
from rayprune.pruning.quantisation.quantiser import faults_of as quantiser_faults
from rayprune.reasons import RAISED, reason_of
from rayprune.rllib.algorithms import family_named
from rayprune.rllib.algorithms.target_networks import target_networks
from rayprune.rllib.environments.normalising_wrappers import wrapper_faults
from rayprune.rllib.environments.vector_environment import vector_faults
from rayprune.rllib.experiment.algorithm_config import base_config, build_module
from rayprune.rllib.experiment.unread_model_keys import unread_for_spaces
from rayprune.rllib.modules.groups import group_of
from rayprune.rllib.modules.heads import heads_of
from rayprune.rllib.modules.quantisable import acts
from rayprune.rllib.modules.sensors import sensors_of
from rayprune.rllib.wrap import pruning_faults_of, quantise_faults_of, schedule_faults_of

_SCHEDULE: Final = "pruning.schedule"
_OF_BUILD: Final = (
    "Check `rllib.rl_module` and `env_config`, or choose another `algorithm` or `env`."
)
_OF_ENV: Final = "Check `env_config`, or choose another `env`."


def network_faults(experiment: ExperimentConfig) -> list[str]:
    """Return what only shows once environment and network are built: spaces, names, reach."""
    try:
        config = base_config(experiment)
        family = family_named(experiment.algorithm)
        faults = family.action_faults(config)
        faults += pruning_faults_of(config, experiment.pruning.to_dict())
        faults += schedule_faults_of(config, experiment.pruning.to_dict())
        if experiment.quantise is not None:
            faults += quantise_faults_of(experiment.pruning.to_dict())
        faults += vector_faults(config) or wrapper_faults(config)
        module = None if faults else build_module(config)
        faults += [] if module is None else _unread_in_model(experiment, module)
    except ConfigError as error:
        return list(error.faults)
    except EnvError as error:
        return [f"`env`: {error} {way_out(error.__cause__, _OF_ENV)}"]
    except RAISED as error:  # RLlib raises whatever it meets
        return [
            f"`{experiment.algorithm}` can't be built for `env` {experiment.env!r}: "
            f"{reason_of(error)}. {way_out(error)}"
        ]
    if module is None or faults:
        return faults
    if experiment.quantise is not None:
        faults += quantiser_faults(module, experiment.quantise, layers=partial(acts, module))
    try:
        check_network(module, experiment.dated_pruning)
    except ConfigError as error:
        faults += [_prefixed(fault) for fault in error.faults]
    return faults


def _unread_in_model(experiment: ExperimentConfig, module: Any) -> Iterator[str]:
    block = experiment.rllib.get("rl_module", {})
    if "module_class" not in block:
        spaces = module.observation_space, module.action_space
        yield from unread_for_spaces(experiment.algorithm, block.get("model_config", {}), *spaces)


def check_network(module: Any, pruning: PruningConfig) -> None:
    """Raise ConfigError if ``pruning`` can't be done to ``module`` (names, reachable sparsity)."""
    # Most have no target networks yet: the Learner makes them.
    targets = target_networks(module)
    Pruner(
        module,
        pruning,
        exclude=targets,
        groups=group_of,
        heads=heads_of(module, targets=targets),
        sensors=lambda: sensors_of(module, targets=targets),
    )


def _prefixed(fault: str) -> str:
    """Name a fault's field as the YAML does; a schedule's own checks know their fields only."""
    field = fault.removeprefix("`").partition("`")[0]
    if field.startswith("pruning."):
        return fault
    block = "pruning" if field.partition(".")[0] in PruningConfig.names() else _SCHEDULE
    return fault.replace("`", f"`{block}.", 1)


def _install(error: BaseException) -> str:
    extra = extra_for(error)
    if extra is not None and pip_line(extra) in str(error):
        return "On a cluster that goes into the image of its nodes."
    brings = "Install it" if extra is None else f"{pip_line(extra)} brings it"
    return f"{brings}, on a cluster in the image of its nodes."


def way_out(error: BaseException | None, otherwise: str = _OF_BUILD) -> str:
    """Return what to do about an environment or a network that can't be built."""
    if isinstance(error, ImportError | DependencyNotInstalled):
        return _install(error)
    if "conv_filters" in str(error):
        return (
            "Give `rllib.rl_module.model_config.conv_filters`, a [filters, kernel, stride] for "
            "each layer, such as [[16, 4, 2], [32, 4, 2]]."
        )
    return otherwise
