"""One observation as JSON gives it, checked, as a policy's inputs take it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rayprune.deploy.policy.interface import Array, Port, nested_part
from rayprune.errors import shown
from rayprune.serve.catalogue import PolicyFile
from rayprune.serve.request_error import RequestError


def observation_inputs(policy: PolicyFile, observation: Any) -> list[Array]:
    """Return an observation's leaves, each a batch of one.

    Args:
        policy: whose observation it is.
        observation: raw, as the environment gives it, nested as its space is; lists or arrays.

    Raises:
        RequestError: a part is missing or unknown, of another shape, or not of finite numbers in
            their range.
    """
    ports = policy.interface.observations
    _refuse_unknown([port.name.split(".")[1:] for port in ports], observation, "observation")
    facts = policy.metadata.about.get("inputs", {})
    return [
        _taken(port, _part(observation, port.name), _field(port.name), facts.get(port.name, {}))
        for port in ports
    ]


def noise_input(policy: PolicyFile, noise: Any) -> Array:
    """Return the noise of one action, a batch of one.

    Raises:
        RequestError: the policy draws nothing, or it is of another shape, or not finite.
    """
    port = policy.interface.noise
    if port is None:
        raise RequestError(
            f"`noise` must be left out: {policy.name!r} acts greedily, and draws nothing.",
            400,
            "noise",
        )
    return _taken(port, noise, "noise", {})


def _field(name: str) -> str:
    """Return what a request calls an input.

    >>> _field("obs"), _field("obs.camera")
    ('observation', 'observation.camera')
    """
    return f"observation{name.removeprefix('obs')}"


def _refuse_unknown(paths: Sequence[Sequence[str]], given: Any, field: str) -> None:
    """Refuse parts that no input has: a misspelt one would be lost without a word.

    Args:
        paths: of the inputs that lie in this part, each the names that lead there.
        given: the part.
        field: what a request calls it.
    """
    inner: dict[str, list[Sequence[str]]] = {}
    for path in paths:
        if path:
            inner.setdefault(path[0], []).append(path[1:])
    if isinstance(given, Mapping) and inner:
        names: Sequence[Any] = list(given)
    elif isinstance(given, (list, tuple)) and inner and all(map(str.isdigit, inner)):
        names = range(len(given))
    else:
        return
    for name in names:
        if str(name) not in inner:
            raise RequestError(
                f"`{field}` must have the parts {sorted(inner)}, but has {str(name)!r}, too. Leave "
                "it out, or mend its name.",
                400,
                field,
            )
        _refuse_unknown(inner[str(name)], given[name], f"{field}.{name}")


def _part(observation: Any, name: str) -> Any:
    for part in name.split(".")[1:]:
        try:
            observation = nested_part(observation, part)
        except (KeyError, IndexError, TypeError):
            raise RequestError(
                f"`{_field(name)}` must be given, but isn't. Nest the observation as the "
                "environment does.",
                400,
                _field(name),
            ) from None
    return observation


def _taken(port: Port, given: Any, field: str, facts: Mapping[str, Any]) -> Array:
    values = _array(port, given, field)
    if values.shape != port.shape:
        raise RequestError(
            f"`{field}` must have the shape {list(port.shape)}, but has {list(values.shape)}. "
            "Send one observation, without an axis for a batch.",
            400,
            field,
        )
    if values.dtype.kind == "f":
        _require_finite(values, field, values)
    if np.issubdtype(np.dtype(port.dtype), np.integer):
        _require_whole(port, values, field, facts)
    with np.errstate(over="ignore"):
        taken: Array = np.asarray(values, dtype=port.dtype)
    if taken.dtype.kind == "f":
        _require_finite(taken, field, values)
    return taken[None]


def _array(port: Port, given: Any, field: str) -> Array:
    try:
        values: Array = np.asarray(given)
    except (ValueError, OverflowError):  # rows of unlike lengths
        values = np.asarray(None)
    if values.dtype.kind not in "biuf":
        raise RequestError(
            f"`{field}` must be numbers of the shape {list(port.shape)}, but holds something "
            f"else: {shown(given)}. Send nested lists of numbers (null is none), with rows of one "
            "length.",
            400,
            field,
        )
    return values


def _require_finite(values: Array, field: str, given: Array) -> None:
    if np.isfinite(values).all():
        return
    place = tuple(int(i) for i in np.argwhere(~np.isfinite(values))[0])
    raise RequestError(
        f"`{field}` must be finite numbers of {values.dtype.name}, but is {given[place]} at "
        f"{list(place)}. Mend the sensor, or send its last good reading.",
        400,
        field,
    )


def _require_whole(port: Port, values: Array, field: str, facts: Mapping[str, Any]) -> None:
    bounds = np.iinfo(port.dtype)
    low, high = (
        _bound(facts.get(key), port.shape, limit)
        for key, limit in (("low", bounds.min), ("high", bounds.max))
    )
    wrong = (values < low) | (values > high)
    if values.dtype.kind == "f":
        wrong |= values != np.floor(values)
    if wrong.any():
        place = tuple(int(i) for i in np.argwhere(wrong)[0])
        least, most = (int(np.broadcast_to(x, port.shape)[place]) for x in (low, high))
        raise RequestError(
            f"`{field}` must be whole numbers from {least} to {most}, but is {values[place]} at "
            f"{list(place)}. Send what the environment gives.",
            400,
            field,
        )


def _bound(told: Any, shape: tuple[int, ...], limit: int) -> Array:
    """Return what the space allows, or else what the type holds."""
    if told is None or (isinstance(told, list) and None in told):
        return np.asarray(limit)
    bound = np.asarray(told)
    return bound.reshape(shape) if bound.ndim else bound
