"""Reading pickles of Stable-Baselines3 without running what they name.

A pickle may name any function and have it called. Here only names that make spaces and arrays are
looked up. All else becomes an object that does nothing, so that a file with schedules, callbacks or
a user's own code in it is read all the same; a class that it names can be asked for afterwards.
"""

from __future__ import annotations

import importlib
import io
import pickle
from collections.abc import Mapping
from typing import Any, Final

import torch

from rayprune.errors import CheckpointError, first_line

_NAMES: Final[Mapping[str, frozenset[str]]] = {
    "builtins": frozenset({"bytearray", "dict", "float", "int", "list", "set", "slice", "tuple"}),
    "collections": frozenset({"OrderedDict", "defaultdict", "deque"}),
    "gymnasium.spaces.box": frozenset({"Box"}),
    "gymnasium.spaces.dict": frozenset({"Dict"}),
    "gymnasium.spaces.discrete": frozenset({"Discrete"}),
    "gymnasium.spaces.multi_binary": frozenset({"MultiBinary"}),
    "gymnasium.spaces.multi_discrete": frozenset({"MultiDiscrete"}),
    "gymnasium.spaces.tuple": frozenset({"Tuple"}),
    "numpy": frozenset({"dtype", "ndarray"}),
    "numpy._core.multiarray": frozenset({"_reconstruct", "scalar"}),
    "numpy._core.numeric": frozenset({"_frombuffer"}),
    "numpy.core.multiarray": frozenset({"_reconstruct", "scalar"}),
    "numpy.core.numeric": frozenset({"_frombuffer"}),
}
"""Module -> what of it is looked up: nothing there does more than hold values."""
_CLASSES: Final = (
    "stable_baselines3.common.policies",
    "stable_baselines3.common.torch_layers",
    "stable_baselines3.dqn.policies",
    "stable_baselines3.sac.policies",
    "stable_baselines3.td3.policies",
    "torch.nn.modules.activation",
)
"""Modules of which a network may be made: `class_of` looks their classes up, the pickle doesn't."""


class Inert:
    """Stands for whatever a pickle names and is not looked up; takes all and does nothing."""

    named = ""
    """``module.name``, as the pickle has it."""

    def __new__(cls, *_: Any, **__: Any) -> Inert:
        """Take any arguments."""
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __call__(self, *_: Any, **__: Any) -> Inert:
        """Be a function's result, where a pickle calls one that another made."""
        return self

    def __setstate__(self, state: object) -> None:
        """Keep what is plain: a record's fields can be read."""
        if isinstance(state, dict):
            self.__dict__.update(state)

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def append(self, value: object) -> None:
        """Take a list's part."""

    def extend(self, values: object) -> None:
        """Take a list's parts."""


def load_inert(content: bytes, what: str) -> Any:
    """Return what a pickle holds, with `Inert` objects for what is not looked up.

    Args:
        content: the pickle.
        what: whose it is, for the message.

    Raises:
        CheckpointError: it can't be read.

    >>> load_inert(pickle.dumps({"lr": 3e-4}), "data")
    {'lr': 0.0003}
    """
    try:
        return _Unpickler(io.BytesIO(content)).load()
    except Exception as error:  # pickle raises whatever a broken stream leads to
        raise CheckpointError(f"{what} can't be read: {first_line(error)}.") from error


def stands_for(value: object) -> str | None:
    """Return the name that an inert value or class stands for; None for any other value.

    >>> stands_for(load_inert(pickle.dumps(stands_for), "data"))
    'rayprune.policies.sb3.unpickling.stands_for'
    """
    if isinstance(value, Inert) or (isinstance(value, type) and issubclass(value, Inert)):
        return value.named
    return None


def class_of(value: object) -> type | None:
    """Return the class of torch or Stable-Baselines3 that an inert one stands for; None: none.

    >>> class_of(load_inert(pickle.dumps(torch.nn.Tanh), "data"))
    <class 'torch.nn.modules.activation.Tanh'>
    """
    module, _, name = (stands_for(value) or "").rpartition(".")
    if module not in _CLASSES:
        return None
    found = getattr(importlib.import_module(module), name, None)
    whole = isinstance(found, type) and issubclass(found, torch.nn.Module)
    return found if whole and found.__module__ == module else None


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name in _NAMES.get(module, ()):
            return super().find_class(module, name)
        return type(name, (Inert,), {"named": f"{module}.{name}"})
