"""What goes into an exported policy and what comes out, by name, shape and type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from rayprune.errors import InputError

Array: TypeAlias = npt.NDArray[Any]
Noise = Literal["normal", "gumbel"]


@dataclass(frozen=True, slots=True)
class Port:
    """A tensor that goes in or comes out, batch first.

    >>> Port("obs", (4,)).to_dict()
    {'name': 'obs', 'shape': [4], 'dtype': 'float32'}
    """

    name: str
    shape: tuple[int, ...]
    """Of one item, without the batch."""
    dtype: str = "float32"
    """As NumPy names it."""

    def zeros(self, batch: int) -> Array:
        """Return zeros for ``batch`` items."""
        return np.zeros((batch, *self.shape), self.dtype)

    def take(self, given: Any) -> Array:
        """Return ``given`` as this port takes it.

        Raises:
            InputError: its shape is another.
        """
        array = np.asarray(given)
        if array.shape[1:] != self.shape or array.ndim != len(self.shape) + 1:
            raise InputError(
                f"`{self.name}` must have the shape (batch, *{list(self.shape)}), but has "
                f"{list(array.shape)}. Stack the items along a first axis."
            )
        return np.ascontiguousarray(array, dtype=self.dtype)

    def to_dict(self) -> dict[str, Any]:
        """Return the plain dict, for JSON."""
        return {"name": self.name, "shape": list(self.shape), "dtype": self.dtype}

    @classmethod
    def from_dict(cls, held: Mapping[str, Any]) -> Port:
        """Make a port of `to_dict`'s dict."""
        return cls(held["name"], tuple(held["shape"]), held["dtype"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """A policy's ports: ``observations, noise, states -> action, dist_inputs, next states``."""

    observations: tuple[Port, ...]
    """One named ``obs``, or one for each leaf of a nested observation, named ``obs.camera``."""
    action: Port
    dist_inputs: Port
    """What the action distribution is made from; for a Q-network the Q-values."""
    noise: Port | None = None
    """What a sampled action is drawn with; None for deterministic actions."""
    noise_kind: Noise | None = None
    """Which distribution the noise has to come from: standard normal, or standard Gumbel."""
    states: tuple[Port, ...] = ()
    """Recurrent states, named ``state.h``; zeros when an episode begins."""

    @property
    def inputs(self) -> tuple[Port, ...]:
        """What goes in, in this order."""
        noise = () if self.noise is None else (self.noise,)
        return (*self.observations, *noise, *self.states)

    @property
    def outputs(self) -> tuple[Port, ...]:
        """What comes out, in this order."""
        return (self.action, self.dist_inputs, *(_next(port) for port in self.states))

    def leaves(self, observations: Any) -> list[Array]:
        """Return a batch of observations, nested as the space nests them, as the inputs.

        Raises:
            InputError: a part is missing, or has another shape.
        """
        return [port.take(_leaf(observations, port.name)) for port in self.observations]

    def to_dict(self) -> dict[str, Any]:
        """Return the plain dict, for JSON."""
        return {
            "observations": [port.to_dict() for port in self.observations],
            "action": self.action.to_dict(),
            "dist_inputs": self.dist_inputs.to_dict(),
            "noise": None if self.noise is None else self.noise.to_dict(),
            "noise_kind": self.noise_kind,
            "states": [port.to_dict() for port in self.states],
        }

    @classmethod
    def from_dict(cls, held: Mapping[str, Any]) -> Interface:
        """Make an interface of `to_dict`'s dict."""
        return cls(
            observations=tuple(Port.from_dict(port) for port in held["observations"]),
            action=Port.from_dict(held["action"]),
            dist_inputs=Port.from_dict(held["dist_inputs"]),
            noise=None if held["noise"] is None else Port.from_dict(held["noise"]),
            noise_kind=held["noise_kind"],
            states=tuple(Port.from_dict(port) for port in held["states"]),
        )


def _next(state: Port) -> Port:
    return Port(f"next_{state.name}", state.shape, state.dtype)


def nested_part(whole: Any, part: str) -> Any:
    """Return what a nested observation has under one of the names in a port's name.

    >>> nested_part([5, 6], "1"), nested_part({"1": 7}, "1")
    (6, 7)
    """
    return whole[int(part) if part.isdigit() and not isinstance(whole, Mapping) else part]


def _leaf(observations: Any, name: str) -> Any:
    for part in name.split(".")[1:]:
        try:
            observations = nested_part(observations, part)
        except (KeyError, IndexError, TypeError):
            raise InputError(
                f"The observations lack the part {name!r}, which the policy reads. "
                "Give them nested as the environment does, each leaf batch first."
            ) from None
    return observations
