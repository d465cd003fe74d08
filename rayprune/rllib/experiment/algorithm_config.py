"""From an experiment to RLlib's AlgorithmConfig, with every fault found before a run starts."""

from __future__ import annotations

import importlib
import inspect
import math
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import gymnasium as gym
from gymnasium.error import DependencyNotInstalled
from pydantic import ConfigDict, PydanticSchemaGenerationError, TypeAdapter, ValidationError
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.tune.registry import ENV_CREATOR, _global_registry

from rayprune.algorithms import ALGORITHMS, is_offline
from rayprune.config import (
    EvaluationConfig,
    ExperimentConfig,
    experiment_faults,
    load_raw,
    named_checkpoints,
)
from rayprune.errors import CheckpointError, ConfigError, EnvError, StorageError, did_you_mean
from rayprune.pruning.config import PruningConfig
from rayprune.pruning.pruner import Pruner
from rayprune.reasons import RAISED, reason_of, text_of
from rayprune.rllib.algorithms import family_named
from rayprune.rllib.algorithms.family import has_own_module
from rayprune.rllib.checkpoints.files import (
    CONFIG_FILE,
    locate,
    locate_policy,
    read_experiment,
    read_rllib_config,
)
from rayprune.rllib.cluster.resources import AUTO
from rayprune.rllib.connectors.observations import connect
from rayprune.rllib.connectors.pipelines import MAKERS, Imported, join, own_makers
from rayprune.rllib.environments.environment import spaces_of
from rayprune.rllib.environments.guard import MAX_STEPS_KEY
from rayprune.rllib.environments.normalising_wrappers import wrapper_faults
from rayprune.rllib.experiment.schedule_values import SCHEDULED, schedule_faults
from rayprune.rllib.experiment.unread_model_keys import unread_for_spaces, unread_model_faults
from rayprune.rllib.experiment.unread_settings import unread, unread_faults
from rayprune.rllib.modules.groups import group_of
from rayprune.rllib.modules.heads import heads_of
from rayprune.rllib.modules.sensors import sensors_of
from rayprune.rllib.normalisation import as_configured, normalise
from rayprune.rllib.wrap import remedy_faults_of, with_pruning

_SCHEDULE: Final = "pruning.schedule"
_OF_BUILD: Final = (
    "Check `rllib.rl_module` and `env_config`, or choose another `algorithm` or `env`."
)
_WIDTHS: Final = frozenset({"fcnet_hiddens", "fusionnet_hiddens", "head_fcnet_hiddens"})
_OF_ENV: Final = "Check `env_config`, or choose another `env`."
_MAX_SEQ_LEN: Final = DefaultModelConfig().max_seq_len

# What our own keys say already: two sources for one setting would contradict each other.
_OURS: Final[Mapping[tuple[str, str], str]] = {
    ("environment", "env"): "env",
    ("environment", "env_config"): "env_config",
    ("debugging", "seed"): "seed",
    ("training", "learner_class"): "pruning",
    ("training", "learner_config_dict"): "pruning",
    ("learners", "learner_class"): "pruning",
    ("learners", "learner_config_dict"): "pruning",
    ("rl_module", "rl_module_spec"): "rllib.rl_module.module_class",
}
# Where RLlib's own hint is wrong: it reads Parquet from one path or from several.
_RIGHT_HINTS: Final[Mapping[tuple[str, str], Any]] = {("offline_data", "input_"): str | list[str]}
# RLlib takes these as they are, and fails or learns nothing later.
_LEAST: Final[Mapping[str, float]] = {
    "minibatch_size": 1,
    "num_cpus_per_learner": 0,
    "num_env_runners": 0,
    "num_envs_per_env_runner": 1,
    "num_epochs": 1,
    "num_gpus_per_learner": 0,
    "num_learners": 0,
    "train_batch_size": 1,
    "train_batch_size_per_learner": 1,
}
_NETWORK_KEYS: Final = (
    "algorithm",
    "env",
    "env_config",
    "imports",
    "normalise",
    "pruning",
    "rllib",
)
_OUR_METHODS: Final[Mapping[str, str]] = {"evaluation": "evaluation"}
# A YAML's policy is one: it is evaluated, resumed, exported and compared as such.
_MULTI_AGENT: Final = (
    "`rllib.multi_agent` can't be used in a YAML, whose runs measure one policy. From Python it "
    "works: `prune(config.multi_agent(...), pruning, modules=[...])`."
)
_METHODS: Final = (
    "debugging",
    "env_runners",
    "environment",
    "evaluation",
    "experimental",
    "fault_tolerance",
    "framework",
    "learners",
    "offline_data",
    "python_environment",
    "reporting",
    "rl_module",
    "training",
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
    more, experiment = checked(raw)
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
            (locate_policy if field == "start_from" else locate)(Path(path))
        except (CheckpointError, StorageError) as error:
            faults.append(f"`{field}`: {error}")
    return faults


def rllib_faults(raw: Mapping[str, Any]) -> list[str]:
    """Return the faults of ``rllib`` and ``env`` that show before anything is built."""
    name, blocks, faults = raw.get("algorithm"), raw.get("rllib"), list[str]()
    if isinstance(blocks, Mapping):
        known = isinstance(name, str) and name in ALGORITHMS
        config = family_named(str(name)).config() if known else AlgorithmConfig()
        for method, keywords in blocks.items():
            faults += _block_faults(config, name, str(method), keywords)
    if isinstance(name, str):
        faults += family_named(name).faults(blocks if isinstance(blocks, Mapping) else {})
    if isinstance(raw.get("env"), str):
        faults += env_faults(raw["env"])
    return faults


def network_faults(experiment: ExperimentConfig) -> list[str]:
    """Return what only shows once environment and network are built: spaces, names, reach."""
    try:
        config = base_config(experiment)
        family = family_named(experiment.algorithm)
        faults = family.action_faults(config)
        faults += remedy_faults_of(config, experiment.pruning.to_dict())
        faults += wrapper_faults(config)
        module = None if faults else build_module(config)
        faults += [] if module is None else _unread_in_model(experiment, module)
    except ConfigError as error:
        return list(error.faults)
    except EnvError as error:
        return [f"`env`: {error} {_way_out(error.__cause__, _OF_ENV)}"]
    except RAISED as error:  # RLlib raises whatever it meets
        return [
            f"`{experiment.algorithm}` can't be built for `env` {experiment.env!r}: "
            f"{reason_of(error)}. {_way_out(error)}"
        ]
    if module is None or faults:
        return faults
    try:
        check_network(module, experiment.dated_pruning)
    except ConfigError as error:
        return [_prefixed(fault) for fault in error.faults]
    return []


def _unread_in_model(experiment: ExperimentConfig, module: Any) -> Iterator[str]:
    block = experiment.rllib.get("rl_module", {})
    if "module_class" not in block:
        spaces = module.observation_space, module.action_space
        yield from unread_for_spaces(experiment.algorithm, block.get("model_config", {}), *spaces)


def check_network(module: Any, pruning: PruningConfig) -> None:
    """Raise ConfigError if ``pruning`` can't be done to ``module`` (names, reachable sparsity)."""
    # No target networks yet: the Learner makes them.
    Pruner(
        module,
        pruning,
        groups=group_of,
        heads=heads_of(module, targets=[]),
        sensors=lambda: sensors_of(module, targets=[]),
    )


def build_config(experiment: ExperimentConfig) -> AlgorithmConfig:
    """Return the pruning AlgorithmConfig of an experiment, whose driver validates."""
    return with_pruning(base_config(experiment), experiment.dated_pruning, driven=True)


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
        own = own_makers(config)
        connect(config, raw=has_own_module(config))
        join(config, own)
        wanted = experiment.normalise
        config = normalise(
            as_configured(config), observations=wanted.observations, rewards=wanted.rewards
        )
        config.validate()
    except ConfigError:
        raise
    except (ValueError, TypeError, NotImplementedError) as error:
        raise ConfigError(f"`rllib`: RLlib refuses it: {_first_line(error)}") from error
    return config.copy(copy_frozen=False)


def config_of(checkpoint: Path) -> AlgorithmConfig:
    """Return the config that a checkpoint was trained with; see `settings_of`."""
    return settings_of(checkpoint)[0]


def settings_of(checkpoint: Path) -> tuple[AlgorithmConfig, EvaluationConfig]:
    """Return what a checkpoint was trained with, without pruning where it is ours.

    Returns:
        The algorithm's config, and how its experiment evaluates: as by default if there was none.

    Raises:
        CheckpointError: the config can't be read, or its environment isn't known here.
    """
    if (checkpoint / CONFIG_FILE).is_file():
        experiment = read_experiment(checkpoint)
        return base_config(experiment), experiment.evaluation
    config = read_rllib_config(checkpoint)
    if isinstance(config.env, str) and not _global_registry.contains(ENV_CREATOR, config.env):
        for fault in env_faults(config.env):
            raise CheckpointError(f"checkpoint {str(checkpoint)!r}: {fault}")
    return config, EvaluationConfig()


def build_module(config: AlgorithmConfig) -> Any:
    """Build the algorithm's RLModule as a Learner holds it, critic included."""
    spaces = spaces_of(config)
    return config.get_rl_module_spec(spaces=spaces, inference_only=False).build()


def env_faults(env: str) -> list[str]:
    """Return the fault of an environment id that gymnasium can't find, if it can't."""
    module, _, name = env.rpartition(":")
    try:
        if module:
            importlib.import_module(module)
        gym.spec(name)
    except gym.error.Error as error:
        near = did_you_mean(name, gym.registry)
        return [f"`env` {env!r} is unknown: {_first_line(error)}{near}"]
    except RAISED as error:  # an environment's module may do anything when it is imported
        way_out = "Install it, or put its folder on PYTHONPATH."
        if not isinstance(error, ImportError):
            way_out = "Mend it there: `python -c 'import {module}'` must pass."
        return [
            f"`env` {env!r} needs module {module!r}, which can't be imported: "
            f"{reason_of(error)}. {way_out.format(module=module)}"
        ]
    return []


def _block_faults(
    config: AlgorithmConfig, algorithm: object, method: str, keywords: Any
) -> Iterator[str]:
    where = f"rllib.{method}"
    if method in _OUR_METHODS:
        yield f"`{where}` contradicts rayprune's own `{_OUR_METHODS[method]}`. Set that instead."
    elif method == "multi_agent":
        yield _MULTI_AGENT
    elif method not in _METHODS:
        yield _unknown("rllib", method, _METHODS)
    elif not isinstance(keywords, Mapping):
        yield f"`{where}` must be a mapping of keyword arguments, but is {keywords!r}."
    else:
        known = _parameters(type(config), method)
        if method == "rl_module":
            known = {**known, "module_class": str}
        yield from unread_faults(algorithm, method, keywords)
        for key, value in keywords.items():
            if unread(method, str(key), algorithm) is not None:
                continue
            # A module class of the user's own has keys of its own, and checks them itself.
            if not (key == "model_config" and "module_class" in keywords):
                yield from _keyword_faults(method, str(key), value, known)
                if key == "model_config" and isinstance(value, Mapping) and algorithm in ALGORITHMS:
                    yield from unread_model_faults(str(algorithm), value)


def _keyword_faults(method: str, key: str, value: Any, known: Mapping[str, Any]) -> Iterator[str]:
    where = f"rllib.{method}.{key}"
    if (method, key) in _OURS:
        yield f"`{where}` contradicts rayprune's own `{_OURS[method, key]}`. Set that instead."
    elif key not in known:
        yield f"`{where}` is not a setting of RLlib.{did_you_mean(key, known)}"
    elif method == "rl_module" and key == "model_config" and isinstance(value, Mapping):
        yield from _model_faults(where, value)
    elif key == "num_gpus_per_learner" and value == AUTO:
        return
    elif method == "training" and key in SCHEDULED:
        yield from schedule_faults(where, key, value)
    elif key in MAKERS:
        yield from _connector_faults(where, value)
    else:
        yield from _type_faults(where, value, _RIGHT_HINTS.get((method, key), known[key]))
        if isinstance(value, (int, float)) and not value >= _LEAST.get(key, -math.inf):
            yield f"`{where}` must be at least {_LEAST[key]:g}, but is {value!r}."


def _connector_faults(where: str, value: Any) -> Iterator[str]:
    if not (isinstance(value, str) and ":" in value):
        yield (
            f"`{where}` must name a function that returns connectors, as "
            f"`package.module:function`, but is {value!r}."
        )
        return
    try:
        Imported(value, where).load()
    except ConfigError as error:
        yield from error.faults


def _model_faults(where: str, model: Mapping[str, Any]) -> Iterator[str]:
    # RLlib accepts any key here in silence.
    hints = typing.get_type_hints(DefaultModelConfig)
    for key, value in model.items():
        if key not in hints:
            names = [field.name for field in fields(DefaultModelConfig)]
            yield f"`{where}.{key}` is not a key of RLlib's models.{did_you_mean(key, names)}"
        else:
            wrong = [*_type_faults(f"{where}.{key}", value, hints[key])]
            yield from wrong or _width_faults(f"{where}.{key}", key, value)


def _width_faults(where: str, key: str, value: Any) -> Iterator[str]:
    if key in _WIDTHS and any(width < 1 for width in (value or ())):
        yield (
            f"`{where}` must hold widths of at least 1, but is {value!r}. For a policy without "
            "hidden layers give []."
        )
    elif key == "lstm_cell_size" and value < 1:
        yield f"`{where}` must be at least 1, but is {value!r}."


def _type_faults(where: str, value: Any, hint: Any) -> Iterator[str]:
    adapter = _adapter(hint)
    if adapter is None:
        return
    try:
        adapter.validate_python(value)
    except ValidationError:
        name = getattr(hint, "__name__", None) if isinstance(hint, type) else str(hint)
        yield f"`{where}` must be of type {str(name).replace('typing.', '')}, but is {value!r}."


def _adapter(hint: Any) -> TypeAdapter[Any] | None:
    if hint is inspect.Parameter.empty:
        return None
    try:
        return TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
    except (PydanticSchemaGenerationError, TypeError, NameError, Exception):
        # RLlib's hints name types that only type checkers import; those values go unchecked.
        return None


def _parameters(config_class: type, method: str) -> dict[str, Any]:
    """Return keyword names and type hints of a config method, through ``**kwargs`` of bases."""
    found: dict[str, Any] = {}
    for cls in reversed(config_class.__mro__):
        function = cls.__dict__.get(method)
        if function is not None:
            found.update(_own_parameters(function))
    return found


def _own_parameters(function: Callable[..., Any]) -> dict[str, Any]:
    kinds = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return {
        name: parameter.annotation
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind in kinds and name != "self"
    }


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


def _unknown(field: str, value: object, names: Mapping[str, Any] | Sequence[str]) -> str:
    listed = sorted(names)
    return f"`{field}` must be one of {listed}, but is {value!r}.{did_you_mean(value, listed)}"


def _prefixed(fault: str) -> str:
    """Name a fault's field as the YAML does; a schedule's own checks know their fields only."""
    field = fault.removeprefix("`").partition("`")[0]
    if field.startswith("pruning."):
        return fault
    block = "pruning" if field.partition(".")[0] in PruningConfig.model_fields else _SCHEDULE
    return fault.replace("`", f"`{block}.", 1)


def _first_line(error: BaseException) -> str:
    text = text_of(error)
    # A key alone, or an assertion without a text, says little: its type and line are told.
    return f"{reason_of(error) if not text or isinstance(error, KeyError) else text}."


def _way_out(error: BaseException | None, otherwise: str = _OF_BUILD) -> str:
    """Return what to do about an environment or a network that can't be built."""
    if isinstance(error, ImportError | DependencyNotInstalled):
        return (
            "Install it, on a cluster in the image of its nodes: rayprune[box2d], "
            "rayprune[mujoco] and rayprune[minatar] bring what their environments need."
        )
    if "conv_filters" in str(error):
        return (
            "Give `rllib.rl_module.model_config.conv_filters`, a [filters, kernel, stride] for "
            "each layer, such as [[16, 4, 2], [32, 4, 2]]."
        )
    return otherwise
