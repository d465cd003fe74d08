"""Inputs for a policy, drawn at random, and running it on arrays as its exported file is run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import torch

from rayprune.deploy.policy.interface import Array, Interface, Port

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


def timing_inputs(interface: Interface, batch: int) -> list[Array]:
    """Return inputs for a batch: normal numbers, and zeros where numbers are whole."""
    random = np.random.default_rng(0)

    def one(port: Port) -> Array:
        zeros = port.zeros(batch)
        if zeros.dtype.kind != "f":
            return zeros
        return random.standard_normal(zeros.shape).astype(zeros.dtype)

    return [one(port) for port in interface.inputs]


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
