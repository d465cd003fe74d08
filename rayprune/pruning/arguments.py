"""What a caller of `Pruner` may hand over wrongly, told in one sentence each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, Final

import torch
from torch import nn

from rayprune.errors import ConfigError, InputError, did_you_mean
from rayprune.pruning.checks import is_finite
from rayprune.pruning.config import PruningConfig
from rayprune.pruning.layers.attach import Exclusions, join
from rayprune.pruning.layers.masked import MaskedLayer, own_parameters
from rayprune.pruning.precision import HALVES
from rayprune.pruning.schedules.times import BEGAN, waits_for_return

RANKED: Final = (torch.float32, torch.float64, *HALVES)
"""Types of weights that torch can sort and sum."""
LEVEL: Final = "level"
"""Key, written by a driver, of how far a gate is open."""


def as_config(config: object) -> PruningConfig:
    """Return a config, or what a mapping of its fields makes.

    Raises:
        ConfigError: it is neither, or a field is wrong.

    >>> as_config({"sparsity": 0.5}).sparsity
    0.5
    """
    if isinstance(config, PruningConfig):
        return config
    if not isinstance(config, Mapping):
        raise ConfigError(
            "`config` must be a PruningConfig or a mapping of its fields, but is "
            f"{_shown(config)}. Take PruningConfig(sparsity=0.5)."
        )
    return PruningConfig.from_dict(config)


def check_arguments(module: object, *, groups: object, seed: object) -> None:
    """Raise InputError if an argument of `Pruner` is of a wrong type."""
    if not isinstance(module, nn.Module):
        raise InputError(
            f"`module` must be a torch.nn.Module, an instance of it, but is {_shown(module)}."
        )
    if not (groups is None or callable(groups)):
        raise InputError(
            "`groups` must be a function from a layer's name to its group, but is "
            f"{_shown(groups)}. Take `mapping.__getitem__` of a mapping."
        )
    check_number("seed", seed)


def check_types(layers: Mapping[str, MaskedLayer]) -> None:
    """Raise InputError if a layer's weights are of a type that can't be ranked."""
    for name, layer in layers.items():
        for key, weight in own_parameters(layer).items():
            if weight.dtype not in RANKED:
                known = ", ".join(map(str, RANKED))
                raise InputError(
                    f"Weights are ranked in {known}, but {join(name, key)!r} is {weight.dtype}. "
                    "Convert the module, or list the layer under `exclude`."
                )


def matching(field: str, patterns: object, names: list[str]) -> frozenset[str]:
    """Return the names that a list of glob patterns matches.

    Raises:
        InputError: they are no strings in a list, or one matches none.
    """
    matched: set[str] = set()
    for pattern in _items(field, patterns, "a list of glob patterns of layer names", str):
        found = {name for name in names if fnmatchcase(name, pattern)}
        if not found:
            hint = did_you_mean(pattern, names) or f" Layers are {names}."
            raise InputError(f"`{field}` pattern {pattern!r} matches no layer.{hint}")
        matched |= found
    return frozenset(matched)


def checked_exclusions(module: nn.Module, exclude: Exclusions) -> list[str | nn.Module]:
    """Return exclusions as a list.

    Raises:
        InputError: they are no list, or a pattern matches no part of the module.
    """
    wanted = "a list of modules, or of glob patterns of their names"
    items = _items("exclude", exclude, wanted, (str, nn.Module))
    names = [name for name, _ in module.named_modules()]
    for pattern in items:
        if isinstance(pattern, str) and not any(fnmatchcase(name, pattern) for name in names):
            hint = did_you_mean(pattern, names) or f" Modules are {list(filter(None, names))}."
            raise InputError(f"`exclude` pattern {pattern!r} matches no module.{hint}")
    return items


def check_number(field: str, value: object) -> None:
    """Raise InputError if a value is no finite number."""
    if not is_finite(value):
        raise InputError(f"`{field}` must be a finite number, but is {_shown(value)}.")


def clock_of(step: float, updates: float | None) -> float:
    """Return the clock: env steps, or optimizer updates where none are sampled.

    Raises:
        InputError: either is no number.
    """
    check_number("step", step)
    if updates is not None:
        check_number("updates", updates)
    return step if step or updates is None else updates


def check_gate(config: PruningConfig) -> None:
    """Raise ConfigError if a gate waits for a level, which without a driver nobody raises."""
    if config.gated and not config.dense and LEVEL not in config.schedule:
        raise ConfigError(
            f"`schedule.kind` {config.schedule['kind']!r} needs a driver that validates the "
            "policy and raises `schedule.level`: without one `update` would never prune. Use "
            "`rayprune train` with a YAML file, or another kind; who writes a driver "
            "passes Pruner(..., driven=True) and assigns `pruner.config`."
        )


def awaited(config: PruningConfig) -> str | None:
    """Return what the caller of `Pruner.update` has to post before it prunes; None if nothing."""
    if waits_for_return(config.schedule) and BEGAN not in config.schedule:
        return (
            "`schedule.begin` waits for a return: `update` prunes nothing until `pruner.config` is "
            f"assigned with `schedule.{BEGAN}`, the step at which it was reached. `rayprune train` "
            "and rayprune.rllib.prune do that; or give `begin` in steps."
        )
    if config.chosen.criterion.needs_returns:
        return (
            f"Criterion {config.criterion!r} waits for measurements: `update` prunes nothing until "
            "`pruner.returns` holds the return lost without each of `pruner.awaited_units(step)`. "
            "`rayprune train` measures them; or take another criterion."
        )
    return None


def _items(field: str, given: object, wanted: str, kinds: type | tuple[type, ...]) -> list[Any]:
    # A string is iterable too, and a module that holds others as well.
    listed = isinstance(given, Iterable) and not isinstance(given, (str, nn.Module))
    items = list(given) if listed and isinstance(given, Iterable) else []
    if not listed or any(not isinstance(item, kinds) for item in items):
        raise InputError(f"`{field}` must be {wanted}, but is {_shown(given)}.")
    return items


def _shown(value: object) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__}"
    shown, kind = repr(value), type(value).__name__
    return f"{shown} ({kind})" if len(shown) <= 60 else f"a {kind}"
