"""What rayprune can do without: each extra of pyproject.toml, what it is for, and what it brings.

Whatever lacks a package says so by `needs`: one line that mends it. Imports nothing that may be
missing itself.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from typing import Final, NamedTuple

from rayprune.errors import InputError
from rayprune.reasons import chain_of, text_of


class Extra(NamedTuple):
    """A set of packages that only some features need."""

    line: str
    """What it is for."""
    modules: tuple[str, ...]
    """What its packages are imported as."""


EXTRAS: Final[Mapping[str, Extra]] = {
    "rllib": Extra("training, and all commands that play episodes", ("ray", "gymnasium", "scipy")),
    "deploy": Extra("`--format onnx`", ("onnx", "onnxscript", "onnxruntime")),
    "sb3": Extra("zips of Stable-Baselines3", ("stable_baselines3", "gymnasium")),
    "serve": Extra("`rayprune serve`", ("ray", "starlette")),
    "jobs": Extra("`rayprune submit`", ("ray", "aiohttp", "requests")),
    "wandb": Extra("`tracking.wandb`, `rayprune report --wandb`", ("wandb", "wandb_workspaces")),
    "tensorboard": Extra("`tracking.tensorboard`", ("tensorboardX",)),
    "optuna": Extra("`search.method: nsga2` and `tpe`", ("optuna",)),
    "pb2": Extra("`search.method: pb2`", ("sklearn",)),
    "minari": Extra("`offline_data: {input_: [minari://ID]}`", ("minari",)),
    "dreamerv3": Extra("`algorithm: DreamerV3`", ("PIL",)),
    "box2d": Extra("LunarLander, BipedalWalker, CarRacing", ("Box2D", "pygame")),
    "mujoco": Extra("Hopper, HalfCheetah and other MuJoCo tasks", ("mujoco", "imageio")),
    "atari": Extra("rayprune.envs:Atari-v0", ("ale_py", "cv2")),
    "minatar": Extra("rayprune.envs:MinBreakout-v0", ("minatar",)),
    "minigrid": Extra("rayprune.envs:MiniGrid-v0", ("minigrid",)),
    "highway": Extra("highway-env's driving tasks", ("highway_env",)),
    "envpool": Extra("rayprune.envs.envpool:EnvPool/...", ("envpool",)),
}
"""The extras that people install, by name, the most wanted first."""


_REGISTERED_BY: Final[Mapping[str, tuple[str, str]]] = {
    "ALE/": ("atari", "ale_py"),
    "BabyAI-": ("minigrid", "minigrid"),
    "MiniGrid-": ("minigrid", "minigrid"),
    "highway-": ("highway", "highway_env"),
}
"""How ids of environments begin, with the extra and the module that registers them."""


def registers(env: str) -> str:
    """Return, as a sentence, what makes an id known to gymnasium; empty where nobody knows.

    >>> registers("ALE/Pong-v5")[:44], registers("Pong-v5")
    ('Write `ale_py:ALE/Pong-v5`, which imports wh', '')
    """
    for beginning, (extra, module) in _REGISTERED_BY.items():
        if env.startswith(beginning):
            line = "" if installed(module) else f" ({pip_line(extra)})"
            return f"Write `{module}:{env}`, which imports what registers it{line}."
    return ""


def unknown_env(env: str, error: BaseException) -> str:
    """Return, as sentences, why an id isn't known, and what makes it so.

    Args:
        env: a gymnasium id, perhaps as ``module:Id``.
        error: gymnasium's, which suggests the nearest id itself.

    >>> unknown_env("CartPol", ValueError("Environment `CartPol` doesn't exist."))
    "Environment `CartPol` doesn't exist."
    """
    said = text_of(error)
    sentence = said if said.endswith("?") else f"{said}."
    return f"{sentence} {registers(env) or _registers_class(env)}".rstrip()


def _registers_class(env: str) -> str:
    module, _, name = env.rpartition(":")
    if not isinstance(getattr(sys.modules.get(module), name, None), type):
        return ""
    return (
        f"{env!r} is a class, which needs an id: `gymnasium.register('{name}-v0', {env!r})` in "
        f"{module!r}, and write '{env}-v0'."
    )


def pip_line(extra: str) -> str:
    """Return the line that installs an extra.

    >>> pip_line("deploy")
    "pip install 'rayprune[deploy]'"
    """
    return f"pip install 'rayprune[{extra}]'"


def lacking(extra: str) -> list[str]:
    """Return those of an extra's modules that aren't installed; none of them is imported."""
    return [name for name in EXTRAS[extra].modules if not installed(name)]


def installed(module: str) -> bool:
    """Whether a module can be found; a folder of its name, such as W&B's own ``wandb/``, is none.

    >>> installed("json"), installed("no_such_module")
    (True, False)
    """
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return False
    return found is not None and getattr(found, "origin", "") is not None


def extra_of(module: str) -> str | None:
    """Return the extra that brings a module, the first of several; None where none does.

    >>> extra_of("ray.tune"), extra_of("numpy")
    ('rllib', None)
    """
    top = module.partition(".")[0]
    return next((name for name, extra in EXTRAS.items() if top in extra.modules), None)


def extra_for(error: BaseException) -> str | None:
    """Return the extra that mends a failed import, however it was wrapped; None where none does."""
    names = (str(inner.name) for inner in chain_of(error) if isinstance(inner, ImportError))
    return next(filter(None, map(extra_of, names)), None)


def require(what: str, extra: str) -> None:
    """Refuse where an extra isn't installed.

    Args:
        what: needs it; begins the sentence.
        extra: its name.

    Raises:
        InputError: says which packages are missing, and the line that installs them.
    """
    if lacking(extra):
        raise InputError(needs(what, extra) + ".")


def needs(what: str, extra: str) -> str:
    """Return the sentence, without its full stop, that says what an extra is missing for.

    >>> needs("`search.method: pb2`", "pb2")[-27:]
    "pip install 'rayprune[pb2]'"
    """
    missing = lacking(extra) or [*EXTRAS[extra].modules]
    return f"{what} needs {_and(missing)}: {pip_line(extra)}"


def _and(names: list[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
