"""Spaces as a command line gives them: ``Box(4)``, ``Box(2, low=-1, high=1)``, ``Discrete(3)``."""

from __future__ import annotations

import ast
from typing import Any

import gymnasium as gym
import numpy as np

from rayprune.errors import InputError
from rayprune.policies.spaces import Space

_FORMS = (
    "Box(4), Box(2, low=-1, high=1), Box(3, 84, 84, dtype='uint8'), Discrete(3) or "
    "MultiDiscrete(3, 2)"
)
_KEYS = {"Box": {"low", "high", "dtype"}, "Discrete": set[str](), "MultiDiscrete": set[str]()}


def space_of(text: str, option: str) -> Space:
    """Return the space that a text names; nothing of it is run.

    Args:
        text: a kind of space with its shape, or its numbers of choices.
        option: what was given, for the message.

    Raises:
        InputError: it is no such text.

    >>> space_of("Box(2, low=-1, high=1)", "--action-space")
    Box(-1.0, 1.0, (2,), float32)
    >>> space_of("Discrete(3)", "--action-space")
    Discrete(3)
    """
    try:
        kind, sizes, keys = _parts(text)
        return _made(kind, sizes, keys)
    except (SyntaxError, ValueError, TypeError, AssertionError, KeyError) as error:
        raise InputError(
            f"`{option}` must be a space such as {_FORMS}, but is {text!r}. Of any other kind give "
            "`--env`."
        ) from error


def _parts(text: str) -> tuple[str, list[int], dict[str, Any]]:
    call = ast.parse(text.strip(), mode="eval").body
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        raise ValueError(text)
    keys = {str(key.arg): ast.literal_eval(key.value) for key in call.keywords}
    sizes = [ast.literal_eval(size) for size in call.args]
    if not sizes or any(type(size) is not int or size < 1 for size in sizes):
        raise ValueError(text)
    if not keys.keys() <= _KEYS[call.func.id]:
        raise ValueError(text)
    return call.func.id, sizes, keys


def _made(kind: str, sizes: list[int], keys: dict[str, Any]) -> Space:
    if kind == "Discrete":
        (count,) = sizes
        return gym.spaces.Discrete(count)
    if kind == "MultiDiscrete":
        return gym.spaces.MultiDiscrete(sizes)
    dtype = np.dtype(keys.get("dtype", "float32"))
    low, high = (0, 255) if dtype == np.uint8 else (-np.inf, np.inf)
    given = (keys.get("low", low), keys.get("high", high))
    return gym.spaces.Box(*given, shape=tuple(sizes), dtype=dtype.type)
