"""A request that a policy answers, for people to try it with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rayprune.deploy.policy.interface import Port
from rayprune.serve.catalogue import PolicyFile


def example_body(policy: PolicyFile) -> dict[str, Any]:
    """Return a request's JSON, with a usual observation: the recorded mean, or else zeros."""
    facts = policy.metadata.about.get("inputs", {})
    observation: Any = None
    for port in policy.interface.observations:
        value = _usual(port, facts.get(port.name, {}))
        observation = _put(observation, port.name.split(".")[1:], value)
    body: dict[str, Any] = {"observation": observation}
    return body | {"session": "a", "begin": True} if policy.interface.states else body


def _usual(port: Port, facts: Mapping[str, Any]) -> Any:
    whole = np.issubdtype(np.dtype(port.dtype), np.integer)
    told = facts.get("low" if whole else "mean")
    # Four digits are enough to read; None becomes NaN.
    values = np.nan_to_num(np.array(0.0 if told is None else told, np.float64)).round(4)
    return np.broadcast_to(values.reshape(port.shape if values.ndim else ()), port.shape).tolist()


def _put(whole: Any, parts: list[str], value: Any) -> Any:
    """Return nested dicts, or lists for a tuple's parts, with a value in its place.

    >>> _put(_put(None, ["a", "0"], 1), ["a", "1"], 2)
    {'a': [1, 2]}
    """
    if not parts:
        return value
    if parts[0].isdigit():
        held = list(whole or [])
        place = int(parts[0])
        held += [None] * (place + 1 - len(held))
        held[place] = _put(held[place], parts[1:], value)
        return held
    named = dict(whole or {})
    named[parts[0]] = _put(named.get(parts[0]), parts[1:], value)
    return named
