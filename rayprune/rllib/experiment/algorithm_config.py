"""From an experiment, or a checkpoint, to RLlib's AlgorithmConfig and RLModule."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.tune.registry import ENV_CREATOR, _global_registry

from rayprune.config import (
    EvaluationConfig,
    ExperimentConfig,
)
from rayprune.errors import CheckpointError, ConfigError
from rayprune.reasons import RAISED, reason_of
from rayprune.rllib.algorithms import family_named
from rayprune.rllib.algorithms.family import has_own_module
from rayprune.rllib.checkpoints.files import open_settings
from rayprune.rllib.cluster.resources import AUTO
from rayprune.rllib.connectors.observations import connect
from rayprune.rllib.connectors.pipelines import MAKERS, Imported, join, own_makers
from rayprune.rllib.environments.environment import spaces_of
from rayprune.rllib.environments.guard import MAX_STEPS_KEY
from rayprune.rllib.experiment.rllib_checks import env_faults, said_by
from rayprune.rllib.modules.quantisable import make_modules_quantisable
from rayprune.rllib.normalisation import as_configured, normalise
from rayprune.rllib.wrap import with_pruning

_MAX_SEQ_LEN: Final = DefaultModelConfig().max_seq_len


def build_config(experiment: ExperimentConfig) -> AlgorithmConfig:
    """Return the pruning AlgorithmConfig of an experiment, whose driver validates."""
    return with_pruning(
        base_config(experiment),
        experiment.dated_pruning,
        quantise=experiment.quantise,
        driven=True,
        lean=experiment.lean,
    )


def base_config(experiment: ExperimentConfig) -> AlgorithmConfig:
    """Return the experiment's AlgorithmConfig without pruning; `auto` GPUs count as none.

    Raises:
        ConfigError: RLlib refuses a combination of settings.
    """
    family = family_named(experiment.algorithm)
    config = family.config()
    config.environment(experiment.env, env_config=dict(experiment.env_config))
    config.debugging(seed=experiment.seed, log_level="ERROR")
    config.learners(learner_config_dict={MAX_STEPS_KEY: experiment.evaluation.max_steps})
    try:
        family.set_defaults(config)
        for method, keywords in experiment.rllib.items():
            getattr(config, method)(**_translated(method, keywords))
        if config._rl_module_spec is None:
            family.allow_linear(config)
        elif faults := family.module_faults(config):
            raise ConfigError(faults)
        own = own_makers(config)
        connect(config, raw=has_own_module(config))
        join(config, own)
        wanted = experiment.normalise
        config = normalise(
            as_configured(config), observations=wanted.observations, rewards=wanted.rewards
        )
        if experiment.quantise is not None:
            make_modules_quantisable(config)
        config.validate()
    except ConfigError:
        raise
    except (ValueError, TypeError, NotImplementedError) as error:
        raise ConfigError(f"`rllib`: RLlib refuses it: {said_by(error)}") from error
    return config.copy(copy_frozen=False)


@dataclass(frozen=True, slots=True)
class CheckpointSettings:
    """A checkpoint, and what it was trained with."""

    directory: Path
    config: AlgorithmConfig
    """Without pruning where the checkpoint is ours."""
    evaluation: EvaluationConfig
    """How its experiment evaluates: as by default if there was none."""


def settings_of(checkpoint: Path) -> CheckpointSettings:
    """Return what a checkpoint was trained with.

    Args:
        checkpoint: rayprune's, plain RLlib's, or a finished run's directory.

    Raises:
        CheckpointError: nothing there is a checkpoint, its config can't be read, or its environment
            isn't known here.
    """
    directory, held = open_settings(checkpoint)
    if isinstance(held, ExperimentConfig):
        return CheckpointSettings(directory, base_config(held), held.evaluation)
    if isinstance(held.env, str) and not _global_registry.contains(ENV_CREATOR, held.env):
        for fault in env_faults(held.env):
            raise CheckpointError(f"checkpoint {str(directory)!r}: {fault}")
    return CheckpointSettings(directory, held, EvaluationConfig())


def build_module(config: AlgorithmConfig) -> Any:
    """Build the algorithm's RLModule as a Learner holds it, critic included."""
    spaces = spaces_of(config)
    return config.get_rl_module_spec(spaces=spaces, inference_only=False).build()


def _translated(method: str, keywords: Mapping[str, Any]) -> dict[str, Any]:
    given: dict[str, Any] = {
        key: Imported(value, f"rllib.{method}.{key}") if key in MAKERS else value
        for key, value in keywords.items()
    }
    if method == "learners" and given.get("num_gpus_per_learner") == AUTO:
        del given["num_gpus_per_learner"]
    if method == "rl_module" and "module_class" not in given and "model_config" in given:
        # A dict without it fails in RLlib's own LSTM, deep inside the first update.
        given["model_config"] = {"max_seq_len": _MAX_SEQ_LEN, **given["model_config"]}
    if method == "rl_module" and "module_class" in given:
        spec = RLModuleSpec(
            module_class=_import_class(given.pop("module_class")),
            model_config=dict(given.pop("model_config", {})),
        )
        given["rl_module_spec"] = spec
    return given


def _import_class(path: str) -> type:
    module, _, name = path.partition(":")
    try:
        found: type = getattr(importlib.import_module(module), name)
        return found
    except RAISED as error:  # a user's module may do anything when it is imported
        raise ConfigError(
            f"`rllib.rl_module.module_class` {path!r} can't be imported: {reason_of(error)}. "
            "Write it as `package.module:Class`."
        ) from error
