"""What each element of an exported policy's ports is: its name, its bounds, its usual values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from rayprune.deploy.policy.interface import Array, Port

_MOST: Final = 1024
"""Elements of a port that are told one by one; of an image the whole is."""


def described(
    ports: Sequence[Port], recorded: Sequence[Array], known: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Return what is known of each port's elements, by the port's name.

    Args:
        ports: observations, or the action.
        recorded: what was met there, one array a port.
        known: by the port's name ``names`` of its elements, and ``low`` and ``high``, what the
            space allows; some or none of them.

    Returns:
        Those, and the recorded ``mean`` and ``std``: a number for each element in the order of the
        flattened port, or one number where all are the same, or too many. An element without a
        name has its index. What isn't finite is None.
    """
    return {
        port.name: _one(values, known.get(port.name, {}))
        for port, values in zip(ports, recorded, strict=True)
    }


def _one(values: Array, known: Mapping[str, Any]) -> dict[str, Any]:
    flat = values.reshape(len(values), -1).astype(np.float64)
    count = flat.shape[1]
    many = count > _MOST
    over = None if many else 0
    told: dict[str, Any] = {"mean": few(flat.mean(axis=over)), "std": few(flat.std(axis=over))}
    for key in ("low", "high"):
        if key in known:
            told[key] = known[key]
    if not many:
        told["names"] = list(known.get("names") or map(str, range(count)))
    return told


def few(numbers: Array) -> Any:
    """Return numbers as JSON has them, one where they are all the same, None for too many.

    >>> few(np.array([1.0, 1.0])), few(np.array([0.5, np.inf]))
    (1.0, [0.5, None])
    """
    # Seven digits, which is what float32 has.
    values = [float(f"{number:.7g}") for number in np.atleast_1d(numbers).tolist()]
    plain = [number if math.isfinite(number) else None for number in values]
    if len(set(plain)) == 1:
        return plain[0]
    return plain if len(plain) <= _MOST else None
