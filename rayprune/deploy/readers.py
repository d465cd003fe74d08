"""How Linear, convolutional and recurrent layers read units and make new ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from rayprune.deploy.channels import FREE, PINNED
from rayprune.deploy.reading import Reading, Use, layer_of, named
from rayprune.deploy.values import NAN, Value, along, amplitudes, columns, unknown

Arguments = Mapping[str, Any]
"""An operator's arguments by the names of its schema; tensors as :class:`Value`."""
Shapes = Sequence[torch.Size]
"""Of an operator's results."""


def read_linear(reading: Reading, given: Arguments, shapes: Shapes) -> list[Value]:
    """Read ``x @ W.T + b`` along the last axis."""
    return [_affine(reading, given, shapes[0], axis=-1, padded=False)]


def read_convolution(reading: Reading, given: Arguments, shapes: Shapes) -> list[Value]:
    """Read a Conv1d or Conv2d along the channel axis; grouped ones are held whole."""
    weight = given["weight"].parameter
    axis = len(shapes[0]) - given["weight"].channels.dim() + 1
    if given["groups"] != 1:
        reading.hold(given["input"].channels, f"{named(layer_of(weight))} is grouped")
        return [unknown(shapes[0])]
    padding = given["padding"]
    padded = padding != "valid" if isinstance(padding, str) else any(padding)
    return [_affine(reading, given, shapes[0], axis=axis, padded=padded)]


def _affine(
    reading: Reading, given: Arguments, shape: torch.Size, *, axis: int, padded: bool
) -> Value:
    weight, bias = given["weight"].parameter, given["bias"].parameter if given["bias"] else ""
    seen = columns(given["input"], axis)
    units = reading.units_of(weight, shape[axis])
    constants = seen.constants.where(seen.constants == 0, NAN) if padded else seen.constants
    stuck = constants.isnan() if bias else constants.isnan() | (constants != 0)
    use = Use(
        weight=weight,
        bias=bias,
        rows=units,
        columns=reading.columns_of(given["input"], seen, named(layer_of(weight))),
        constants=constants,
        carried=amplitudes(seen.patterns.where(stuck, 0.0)),
    )
    reading.uses.append(use)
    why = "has zeros around them" if bias else "has no bias to hold them"
    held = use.columns[~use.carried.isnan()]
    reading.note(held, f"they are constant, but {named(layer_of(weight))} {why}")
    return Value(along(units, shape, axis), along(constant_rows(reading, use), shape, axis))


def constant_rows(reading: Reading, use: Use) -> Tensor:
    """Return what each row computes if no input can change it, else NaN; shape ``(out,)``."""
    weight = reading.parameters[use.weight]
    by_column = weight.reshape(*weight.shape[:2], -1)
    varying = use.constants.isnan()
    moved = (by_column[:, varying] != 0).flatten(1).any(1)
    constant = by_column[:, ~varying].sum(-1) @ use.constants[~varying]
    if use.bias:
        constant = constant + reading.parameters[use.bias]
    return torch.where(moved, torch.nan, constant)


def read_recurrent(reading: Reading, given: Arguments, shapes: Shapes) -> list[Value]:
    """Read an LSTM or GRU. All its layers and directions lose the same hidden units.

    Its outputs are never constant: without incoming weights a unit still moves by its biases.
    """
    names = [parameter.parameter for parameter in given["params"]]
    first, size = names[0], shapes[1][-1]
    directions = 2 if given["bidirectional"] else 1
    per_strand = len(names) // (given["num_layers"] * directions)
    if per_strand not in (2, 4):
        reading.hold(given["input"].channels, f"{named(layer_of(first))} has a projection")
        return [unknown(shape) for shape in shapes]
    units = reading.units_of(first, size)
    below = columns(given["input"], -1)
    below_channels = reading.columns_of(given["input"], below, named(layer_of(first)))
    seen = (below_channels, below.constants)
    for strand in range(given["num_layers"] * directions):
        if strand >= directions:
            varying = torch.full((size * directions,), NAN, dtype=torch.float64)
            seen = (units.repeat(directions), varying)
        own = names[strand * per_strand : (strand + 1) * per_strand]
        _read_strand(reading, own, units, seen)
    for state in _states(given["hx"]):
        _meet(reading, state, units, layer_of(first))
    tail = [unknown(shape, channels=units) for shape in shapes[1:]]
    return [unknown(shapes[0], channels=units.repeat(directions)), *tail]


def _read_strand(
    reading: Reading, own: Sequence[str], units: Tensor, seen: tuple[Tensor, Tensor]
) -> None:
    gates = reading.parameters[own[0]].shape[0] // units.numel()
    rows = units.repeat(gates)
    bias = own[2] if len(own) == 4 else ""
    never = torch.full((units.numel(),), NAN, dtype=torch.float64)
    columns_in, constants = seen
    stuck = torch.full_like(constants, NAN) if bias else constants.where(constants != 0, NAN)
    reading.uses.append(Use(own[0], bias, rows, columns_in, constants, stuck))
    reading.uses.append(Use(own[1], own[3] if bias else "", rows, units, never, never))
    into = [reading.parameters[name].reshape(gates, units.numel(), -1) for name in own[:2]]
    lost = (torch.cat(into, -1) == 0).all(-1).all(0)
    reading.note(units[lost], "nothing comes in, but biases move them from step to step")


def _states(given: Any) -> list[Value]:
    return list(given) if isinstance(given, (list, tuple)) else [given]


def _meet(reading: Reading, state: Value, units: Tensor, layer: str) -> None:
    """Tie a state to the units that it is the state of."""
    zeros = (state.channels == FREE) & (state.known == 0)
    if bool(zeros.all()):
        return  # the layer's own zeros, sized by itself
    if bool((state.channels <= PINNED).any()):
        reading.hold(units, f"the state of {named(layer)} is an input; see `shrink_states`")
    reading.channels.tie(state.channels, units)


READERS: Final[Mapping[str, Callable[[Reading, Arguments, Shapes], list[Value]]]] = {
    "linear": read_linear,
    "conv1d": read_convolution,
    "conv2d": read_convolution,
    "lstm": read_recurrent,
    "gru": read_recurrent,
}
"""By operator."""
