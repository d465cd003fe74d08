"""Faults of what goes to RLlib and of the environment's name, before anything is built."""

from __future__ import annotations

import importlib
import inspect
import math
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, Final

import gymnasium as gym
from pydantic import ConfigDict, PydanticSchemaGenerationError, TypeAdapter, ValidationError
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

from rayprune.algorithms import ALGORITHMS
from rayprune.errors import ConfigError, did_you_mean
from rayprune.extras import extra_for, pip_line, unknown_env
from rayprune.import_path import search_here
from rayprune.reasons import RAISED, reason_of, text_of
from rayprune.rllib.algorithms import family_named
from rayprune.rllib.cluster.resources import AUTO
from rayprune.rllib.connectors.pipelines import MAKERS, Imported
from rayprune.rllib.experiment.schedule_values import SCHEDULED, schedule_faults
from rayprune.rllib.experiment.unread_model_keys import unread_model_faults
from rayprune.rllib.experiment.unread_settings import unread, unread_faults

_WIDTHS: Final = frozenset({"fcnet_hiddens", "fusionnet_hiddens", "head_fcnet_hiddens"})
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
# Needs an extra for its config's class.
_ODD: Final = ("DreamerV3",)
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


def env_faults(env: str) -> list[str]:
    """Return the fault of an environment id that gymnasium can't find, if it can't."""
    module, _, name = env.rpartition(":")
    try:
        if module:
            search_here()
            importlib.import_module(module)
        gym.spec(name)
    except gym.error.Error as error:
        return [f"`env` {env!r} is unknown: {unknown_env(env, error)}"]
    except RAISED as error:  # an environment's module may do anything when it is imported
        way_out = "Install it, or put its folder on PYTHONPATH."
        extra = extra_for(error)
        if extra is not None:
            way_out = f"{pip_line(extra)} brings it."
        elif not isinstance(error, ImportError):
            way_out = "Mend it there: `python -c 'import {module}'` must pass."
        return [
            f"`env` {env!r} needs module {module!r}, which can't be imported: "
            f"{reason_of(error)}. {way_out.format(module=module)}"
        ]
    return []


def said_by(error: BaseException) -> str:
    """Return what RLlib, gymnasium or a user's code says by an error, as a sentence."""
    text = text_of(error)
    # A key alone, or an assertion without a text, says little: its type and line are told.
    return f"{reason_of(error) if not text or isinstance(error, KeyError) else text}."


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
        known = parameters_of(type(config), method)
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
        if isinstance(value, float) and math.isnan(value):
            yield f"`{where}` must be a number, but is {value!r}."
        elif isinstance(value, (int, float)) and value < _LEAST.get(key, -math.inf):
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
        sound = not _from_text(value, adapter.validate_python(value))
    except ValidationError:
        sound = False
    if not sound:
        name = getattr(hint, "__name__", None) if isinstance(hint, type) else str(hint)
        yield f"`{where}` must be of type {str(name).replace('typing.', '')}, but is {value!r}."


def _from_text(given: Any, read: Any) -> bool:
    """Whether a number or a switch was read from a text, which RLlib would be given as it is.

    >>> _from_text(["64", 32], [64, 32]), _from_text("64", "64")
    (True, False)
    """
    if isinstance(given, (list, tuple)) and isinstance(read, (list, tuple)):
        return any(map(_from_text, given, read))
    return isinstance(given, str) and isinstance(read, (int, float))


def _adapter(hint: Any) -> TypeAdapter[Any] | None:
    if hint is inspect.Parameter.empty:
        return None
    try:
        return TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
    except (PydanticSchemaGenerationError, TypeError, NameError, Exception):
        # RLlib's hints name types that only type checkers import; those values go unchecked.
        return None


def keywords_of_all() -> dict[str, set[str]]:
    """Return for each method that a YAML may call the keywords that any algorithm's has."""
    found: dict[str, set[str]] = {}
    classes = [type(family_named(name).config()) for name in ALGORITHMS if name not in _ODD]
    for method in _METHODS:
        if method not in _OUR_METHODS:
            names = {name for kind in classes for name in parameters_of(kind, method)}
            found[method] = {name for name in names if (method, name) not in _OURS}
    found["rl_module"] |= {"module_class"}
    return found


def parameters_of(config_class: type, method: str) -> dict[str, Any]:
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


def _unknown(field: str, value: object, names: Mapping[str, Any] | Sequence[str]) -> str:
    listed = sorted(names)
    return f"`{field}` must be one of {listed}, but is {value!r}.{did_you_mean(value, listed)}"
