"""Running a policy and its exported file on the same inputs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import numpy as np
import torch

from rayprune.deploy.compaction.precision import Double
from rayprune.deploy.export.shrink import Shrunk
from rayprune.deploy.policy.agreement import TOLERANCE, Agreement, agreement
from rayprune.deploy.policy.interface import Array, Interface, Port
from rayprune.deploy.policy.policy import DeployablePolicy
from rayprune.errors import InputError, InvariantError, RaypruneError

_AT_ONCE: Final = 256
Run = Callable[[list[Array]], list[Array]]


def random_inputs(
    interface: Interface, recorded: Sequence[Array], count: int, seed: int
) -> list[Array]:
    """Return random inputs of the recorded ones' spread, three standard deviations wide.

    Whole numbers are drawn from those recorded, each entry by itself; noise from what it has to be.
    """
    draw = np.random.default_rng(seed)
    return [
        _noise(interface, count, draw)
        if port == interface.noise
        else _like(port, values, count, draw)
        for port, values in zip(interface.inputs, recorded, strict=True)
    ]


def draw_noise(interface: Interface, count: int, seed: int) -> list[Array]:
    """Return the noise that ``count`` sampled actions want; an empty list for greedy ones."""
    if interface.noise is None:
        return []
    return [_noise(interface, count, np.random.default_rng(seed))]


def module_run(module: torch.nn.Module) -> Run:
    """Return what runs a policy on arrays, as `Artifact.run` does."""

    def run(inputs: list[Array]) -> list[Array]:
        with torch.inference_mode():
            return [x.numpy() for x in module(*(torch.from_numpy(given) for given in inputs))]

    return run


def proven(small: Shrunk, expected: Run, got: Run, inputs: list[Array], name: str) -> Agreement:
    """Compare a file's outputs with those of the policy that was to be exported, masked as it was.

    Raises:
        InvariantError: they differ.
    """
    interface = small.policy.interface
    inputs = small.grounded(inputs)
    wanted = small.outputs(in_parts(expected, inputs))
    had = in_parts(got, small.inputs(inputs))
    noise = None
    if interface.noise_kind == "gumbel":
        noise = wanted[1] + inputs[len(interface.observations)]
    found = agreement(interface, wanted, had, noise)
    if not found.holds:
        raise InvariantError(
            f"The exported file doesn't compute what the policy does: on {found.observations} "
            f"{name} observations `{found.worst}` differs by {found.max_error:.2e} (allowed: "
            f"{TOLERANCE:.0e}), and {found.differing_actions} action(s) differ. Nothing was "
            "written. Please report it with the checkpoint."
        )
    return found


def explained(
    error: InvariantError, policy: DeployablePolicy, inputs: Iterable[list[Array]]
) -> RaypruneError:
    """Return ``error``, or one that says that float32 is too coarse for a policy.

    Args:
        error: a file's outputs differ from the policy's.
        policy: the policy.
        inputs: what they were compared on.
    """
    worst = max((_rounding(policy, given) for given in inputs), default=0.0)
    if worst < TOLERANCE / 4:
        return error
    return InputError(
        f"The policy is rounded too much to be compared within {TOLERANCE:.0e}: in float32 its own "
        f"outputs are {worst:.2e} off those in float64. What it observes or computes on its way is "
        "large against what it gives: normalise its observations (pixels divided by 255, RLlib's "
        "MeanStdFilter) when it is trained. Nothing was written."
    )


def _rounding(policy: DeployablePolicy, inputs: list[Array]) -> float:
    """Return how far a policy's outputs in float32 are from those in float64."""
    double = module_run(copy.deepcopy(policy).double())
    exact = [x.astype(np.float64) if x.dtype == np.float32 else x for x in inputs]
    try:
        with Double():
            wanted = in_parts(double, exact)
    except RuntimeError:  # a type of its own making that can't be doubled: nothing is known
        return 0.0
    return agreement(policy.interface, wanted, in_parts(module_run(policy), inputs)).max_error


def in_parts(run: Run, inputs: Sequence[Array]) -> list[Array]:
    """Run a policy on many inputs, some at a time; return the outputs, joined."""
    count = len(inputs[0])
    parts = [run([x[i : i + _AT_ONCE] for x in inputs]) for i in range(0, count, _AT_ONCE)]
    return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]


def _like(port: Port, values: Array, count: int, draw: np.random.Generator) -> Array:
    if np.issubdtype(values.dtype, np.integer):
        flat = values.reshape(len(values), -1)
        rows = draw.integers(len(flat), size=(count, flat.shape[1]))
        return np.take_along_axis(flat, rows, axis=0).reshape(count, *port.shape)
    mean, std = values.mean(axis=0), values.std(axis=0)
    spread = draw.standard_normal((count, *port.shape))
    wide: Array = (mean + 3.0 * std * spread).astype(port.dtype)
    return wide


def _noise(interface: Interface, count: int, draw: np.random.Generator) -> Array:
    assert interface.noise is not None
    shape = (count, *interface.noise.shape)
    drawn = draw.gumbel(size=shape) if interface.noise_kind == "gumbel" else draw.normal(size=shape)
    return drawn.astype(np.float32)
