"""`Artifact`: an exported file as a policy that acts, whatever its format."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rayprune.deploy.policy.interface import Array, Interface
from rayprune.deploy.policy.metadata import Metadata
from rayprune.errors import InputError

State = dict[str, Array]


class Step(NamedTuple):
    """What a policy did with a batch."""

    actions: Array
    """As the environment takes them, batch first."""
    dist_inputs: Array
    """What the action distribution is made from (logits; means and log-stds; Q-values)."""
    state: State
    """To be given to the next step of the same episodes; empty without recurrence."""

    @property
    def sound(self) -> Array:
        """Which items' actions were made of numbers, shape ``(batch,)``.

        Of a NaN a discrete action still is one of the choices; it is worth nothing then.
        """
        held = np.isnan(self.dist_inputs)
        return np.asarray(~held.any(axis=tuple(range(1, held.ndim))))


class Artifact(ABC):
    """An exported policy, opened.

    Args:
        path: its file.
        metadata: what the file says of itself.
    """

    def __init__(self, path: Path, metadata: Metadata) -> None:
        self.path, self.metadata = path, metadata

    @property
    def interface(self) -> Interface:
        """What goes in and comes out."""
        return self.metadata.interface

    @abstractmethod
    def run(self, inputs: list[Array]) -> list[Array]:
        """Map the interface's inputs to its outputs, in their order, without any checks.

        Args:
            inputs: contiguous, of the ports' types and of one batch size; see `inputs`.
        """

    def initial_state(self, batch: int) -> State:
        """Return the recurrent state that ``batch`` episodes begin with; empty without one."""
        return {port.name: port.zeros(batch) for port in self.interface.states}

    def inputs(
        self, observations: Any, state: Mapping[str, Array] | None = None, noise: Any = None
    ) -> list[Array]:
        """Return what `run` takes for a batch of observations.

        Raises:
            InputError: a part is missing, or of another shape.
        """
        ports = self.interface
        leaves = ports.leaves(observations)
        batch = len(leaves[0])
        held = self.initial_state(batch) if state is None else state
        if ports.noise is not None and noise is None:
            raise InputError(
                f"{str(self.path)!r} draws its actions: give `noise`, {ports.noise_kind}, of shape "
                f"({batch}, *{list(ports.noise.shape)})."
            )
        drawn = [] if ports.noise is None else [ports.noise.take(noise)]
        whole = [*leaves, *drawn, *(port.take(held[port.name]) for port in ports.states)]
        sizes = {port.name: len(x) for port, x in zip(ports.inputs, whole, strict=True)}
        if len(set(sizes.values())) > 1:
            raise InputError(f"All inputs must be of one batch size, but have {sizes}.")
        return whole

    def act(
        self, observations: Any, state: Mapping[str, Array] | None = None, noise: Any = None
    ) -> Step:
        """Act on a batch of observations.

        Args:
            observations: raw, as the environment gives them, each leaf with a first axis for the
                batch; nested where the space is.
            state: `Step.state` of the step before; None when episodes begin.
            noise: where the interface has a port for it.
        """
        actions, dist_inputs, *following = self.run(self.inputs(observations, state, noise))
        names = [port.name for port in self.interface.states]
        return Step(actions, dist_inputs, dict(zip(names, following, strict=True)))
