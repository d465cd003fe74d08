"""`open_artifact`: any exported file as a policy that acts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from rayprune.deploy.policy.interface import Array, Interface
from rayprune.deploy.policy.metadata import Metadata
from rayprune.deploy.policy.seal import require_whole
from rayprune.errors import InputError

SUFFIXES: Final[Mapping[str, str]] = {"onnx": ".onnx", "torch": ".pt2", "c": ".c"}
"""Format -> how its file's name ends."""

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


def open_artifact(path: Path | str, *, threads: int = 1) -> Artifact:
    """Open an exported file, once its content has the hash that it holds.

    An `OtherVersionWarning` tells of another version of rayprune.

    Args:
        path: what ``rayprune export`` wrote: ``.onnx``, ``.pt2`` or ``.c``.
        threads: how many ONNX Runtime computes with, 0 for one a core; torch has its own setting,
            ``torch.set_num_threads``, and C computes with one.

    Raises:
        InputError: it is none, it has changed since it was exported, its metadata is of another
            schema, or what it needs to run is missing.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"There is no exported file {str(path)!r}. Make one with `rayprune export`."
        )
    if path.suffix in SUFFIXES.values():
        require_whole(path)
    # Here, so that one format's packages aren't needed for another's.
    if path.suffix == SUFFIXES["onnx"]:
        from rayprune.deploy.formats.onnx import OnnxArtifact

        return OnnxArtifact(path, threads)
    if path.suffix == SUFFIXES["torch"]:
        from rayprune.deploy.formats.pt2 import TorchArtifact

        return TorchArtifact(path)
    if path.suffix == SUFFIXES["c"]:
        from rayprune.deploy.formats.c.compiling import CArtifact

        return CArtifact(path)
    raise InputError(
        f"{str(path)!r} is no exported file: its name must end in one of "
        f"{sorted(SUFFIXES.values())}."
    )


def metadata_of(path: Path) -> Metadata:
    """Read what an exported file says of itself, without a runtime or a compiler.

    Raises:
        InputError: it says nothing, or can't be read.
    """
    if path.suffix == SUFFIXES["c"]:
        from rayprune.deploy.formats.c.compiling import metadata_text
    elif path.suffix == SUFFIXES["onnx"]:
        from rayprune.deploy.formats.onnx import metadata_text
    else:
        from rayprune.deploy.formats.pt2 import metadata_text
    return Metadata.from_json(metadata_text(path), path)
