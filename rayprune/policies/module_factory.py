"""A module of one's own: its factory is called, and its weights are loaded."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pickle
import re
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rayprune.deploy.policy.policy import DeployablePolicy
from rayprune.errors import CheckpointError, InputError, first_line
from rayprune.import_path import search_here
from rayprune.policies.adapt import NestedModule
from rayprune.policies.places import ModuleSpec
from rayprune.policies.spaces import Space
from rayprune.reasons import RAISED, reason_of


def make_module(
    spec: ModuleSpec, observation_space: Space | None, action_space: Space | None
) -> nn.Module:
    """Call a module's factory, and load its weights; the code is the user's own, and is run.

    A factory that needs two arguments is given the spaces.

    Args:
        spec: where they are.
        observation_space: the environment's, None where it isn't known.
        action_space: likewise.

    Raises:
        InputError: there is no such code, it raises, or it makes something else.
        CheckpointError: the weights can't be read, or don't fit.
    """
    factory = getattr(_imported(spec.source), spec.factory, None)
    if not callable(factory):
        raise InputError(f"{spec.source!r} has no function or class {spec.factory!r}.")
    try:
        module = factory(*_arguments(factory, spec, observation_space, action_space))
    except InputError:
        raise
    except RAISED as error:
        raise InputError(f"`{spec.source}:{spec.factory}` raises {reason_of(error)}.") from error
    if not isinstance(module, nn.Module):
        raise InputError(
            f"`{spec.source}:{spec.factory}` must make a torch.nn.Module, or what "
            f"`rayprune.policies.policy_of` returns, but makes a {type(module).__name__}."
        )
    if spec.weights is not None:
        _load(module, spec.weights)
    return module


def _arguments(
    factory: Any, spec: ModuleSpec, observation_space: Space | None, action_space: Space | None
) -> tuple[Any, ...]:
    needed = [
        one
        for one in inspect.signature(factory).parameters.values()
        if one.default is one.empty and one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)
    ]
    if not needed:
        return ()
    if len(needed) == 2 and observation_space is not None and action_space is not None:
        return observation_space, action_space
    names = [one.name for one in needed]
    raise InputError(
        f"`{spec.source}:{spec.factory}` needs {names}: it is called with nothing, or, if it needs "
        "two, with the observation space and the action space. Give those by `--env`, or as "
        "`--observation-space` and `--action-space`."
    )


def _imported(source: str) -> Any:
    path = Path(source)
    # What lies beside a script is found by Python, too.
    search_here(*([path.parent] if path.suffix == ".py" else []))
    try:
        if path.suffix != ".py":
            return importlib.import_module(source)
        return _of_file(path)
    except RAISED as error:  # the module is the user's own
        raise InputError(f"{source!r} can't be imported: {reason_of(error)}.") from error


def _of_file(path: Path) -> Any:
    # Under a name that nothing is imported by: a script may be called as a library is.
    name = re.sub(r"\W", "_", f"policy_of_{path.stem}")
    made = importlib.util.spec_from_file_location(name, path)
    assert made is not None
    assert made.loader is not None
    module = importlib.util.module_from_spec(made)
    # As an import does: dataclasses and pickles look their own module up by its name.
    sys.modules[made.name] = module
    try:
        made.loader.exec_module(module)
    except BaseException:
        del sys.modules[made.name]
        raise
    return module


def _load(module: nn.Module, weights: Path) -> None:
    if not weights.is_file():
        raise InputError(f"There is no file of weights {str(weights)!r}.")
    target: Any = module.network if isinstance(module, DeployablePolicy) else module
    # What `policy_of` has put around a module is none of its weights' names.
    target = target.module if isinstance(target, NestedModule) else target
    try:
        # Nothing but tensors: a pickle could run code.
        target.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{str(weights)!r} holds more than tensors, or is broken. Nothing of it was run. Write "
            "it with `torch.save(module.state_dict(), FILE)`."
        ) from error
    except Exception as error:  # torch's own
        raise CheckpointError(
            f"{str(weights)!r} holds no weights that fit: {first_line(error)}. Write it with "
            "`torch.save(module.state_dict(), FILE)`."
        ) from error
