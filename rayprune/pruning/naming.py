"""What callers hand over by parameter or by name, resolved; a name that is nobody's is refused."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from torch import Tensor, nn

from rayprune.errors import InputError, did_you_mean

Value = TypeVar("Value")


def by_parameter(
    field: str, given: Mapping[Any, Value], module: nn.Module
) -> Mapping[nn.Parameter, Value]:
    """Return a mapping that may be keyed by parameter or by name, by parameter.

    Args:
        field: what it is called in messages.
        given: parameters need not be the module's: a Learner's gradients are of all its modules.
        module: gives the names.

    Raises:
        InputError: it is no mapping, or a key is neither a parameter nor a name of the module.

    >>> net = nn.Linear(2, 1)
    >>> by_parameter("gradients", {"weight": None}, net)[net.weight] is None
    True
    """
    if not isinstance(given, Mapping):
        raise InputError(
            f"`{field}` must be a mapping by parameter or by its name, but is "
            f"{type(given).__name__}. Take {{p: p.grad for p in module.parameters()}}."
        )
    # Asked at every optimizer step: parameters, as RLlib has them, are through at once.
    if set(map(type, given)) <= {nn.Parameter}:
        return given
    named = dict(module.named_parameters(remove_duplicate=False))
    return {
        key if isinstance(key, nn.Parameter) else _named(field, key, named): value
        for key, value in given.items()
    }


def check_tensor(field: str, name: str, tensor: object, shape: Collection[int]) -> None:
    """Raise InputError if what stands for a parameter is no tensor of its shape."""
    if not isinstance(tensor, Tensor):
        raise InputError(
            f"`{field}` must hold tensors, but that of {name!r} is {type(tensor).__name__}."
        )
    if tensor.shape != shape:
        raise InputError(
            f"`{field}` must be shaped like the parameters: {name!r} is {tuple(shape)}, but is "
            f"given as {tuple(tensor.shape)}."
        )


def _named(field: str, key: object, named: Mapping[str, nn.Parameter]) -> nn.Parameter:
    if not isinstance(key, str):
        raise InputError(
            f"`{field}` must be keyed by parameter or by its name, but a key is "
            f"{key!r} ({type(key).__name__})."
        )
    if key not in named:
        hint = did_you_mean(key, named) or f" Parameters are {_some(named)}."
        raise InputError(f"`{field}` names {key!r}, which the module doesn't have.{hint}")
    return named[key]


def _some(names: Collection[str], most: int = 8) -> str:
    shown = ", ".join(map(repr, list(names)[:most]))
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
