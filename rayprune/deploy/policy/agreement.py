"""Whether an exported file computes what the policy computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from rayprune.deploy.policy.interface import Array, Interface

TOLERANCE: Final = 1e-5
"""Largest difference allowed in float32: absolute up to a magnitude of 1, relative above. Actions
are scaled to their bounds, and rounded by as much: theirs is relative to `action_scale`."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How two policies' outputs differ on the same inputs."""

    observations: int
    max_error: float
    """Of actions, distribution inputs and states; see `TOLERANCE`."""
    worst: str
    """Which output that is."""
    differing_actions: int
    """Discrete actions that differ though their choice wasn't a tie within the tolerance."""
    ties: int
    """Discrete actions that differ between choices that are equal within the tolerance."""

    @property
    def holds(self) -> bool:
        """Whether they are equal within the tolerance."""
        return self.max_error <= TOLERANCE and self.differing_actions == 0

    def to_dict(self) -> dict[str, Any]:
        """Return the plain dict, for JSON."""
        return {**asdict(self), "tolerance": TOLERANCE, "holds": self.holds}


def agreement(
    interface: Interface,
    expected: Sequence[Array],
    got: Sequence[Array],
    choices: Array | None = None,
) -> Agreement:
    """Compare two lists of outputs, in the interface's order.

    Args:
        interface: the ports.
        expected: outputs of the policy that is to be reproduced.
        got: those of the exported file.
        choices: what discrete actions were the argmax of, where noise was added.
    """
    scales = {interface.action.name: action_scale(expected[0])}
    errors = {
        port.name: _error(want, have, scales.get(port.name, 1.0))
        for port, want, have in zip(interface.outputs, expected, got, strict=True)
        if not _is_discrete(want)
    }
    worst = max(errors, key=lambda name: errors[name])
    differing = ties = 0
    if _is_discrete(expected[0]):
        wrong = (expected[0] != got[0]).reshape(len(got[0]), -1).any(axis=1)
        tied = wrong & _tied(expected[1] if choices is None else choices, expected[0], got[0])
        ties, differing = int(tied.sum()), int((wrong & ~tied).sum())
    return Agreement(len(got[0]), errors[worst], worst, differing, ties)


def action_scale(actions: Array) -> Array:
    """Return the largest magnitude of each component of continuous actions, 1 at least.

    >>> action_scale(np.array([[0.5, -300.0], [0.1, 2.0]]))
    array([  1., 300.])
    """
    return np.asarray(np.abs(actions).max(axis=0, initial=1.0))


def _is_discrete(actions: Array) -> bool:
    return bool(np.issubdtype(actions.dtype, np.integer))


def _error(expected: Array, got: Array, scale: Array | float) -> float:
    if expected.shape != got.shape:
        return float("inf")
    difference = np.abs(got.astype(np.float64) - expected)
    relative = difference / np.maximum(scale, np.abs(expected))
    # NaN, or infinities that differ, are no agreement; max() would pass over them.
    return float("inf") if np.isnan(relative).any() else float(relative.max(initial=0.0))


def _tied(choices: Array, expected: Array, got: Array) -> Array:
    """Return, for single choices, where both were equally good."""
    if expected.ndim > 1:
        return np.zeros(len(expected), bool)
    rows = np.arange(len(choices))
    best, other = choices[rows, expected], choices[rows, got]
    return np.asarray(best - other <= 2 * TOLERANCE * np.maximum(1.0, np.abs(best)))
