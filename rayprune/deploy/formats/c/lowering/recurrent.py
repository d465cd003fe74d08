"""Recurrent operators, one step at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from torch import fx

from rayprune.deploy.formats.c.data_movement import add_joined, add_sliced
from rayprune.deploy.formats.c.lowering.nodes import Operator, unsupported
from rayprune.deploy.formats.c.program import Program, Value
from rayprune.deploy.formats.c.recurrent_operators import add_gru, add_lstm
from rayprune.deploy.policy.interface import Array


def _lstm(
    program: Program, node: fx.Node, x: Value, states: Sequence[Value], weights: Any, *rest: Any
) -> list[Value]:
    each = _layers(node, x, weights, rest)
    outputs: list[Sequence[Value]] = []
    carried = x.shaped((x.size,))
    for place, arrays in enumerate(each):
        h, c = (add_sliced(program, state, 0, place, place + 1) for state in states)
        outputs.append(add_lstm(program, carried, h.shaped((h.size,)), c.shaped((c.size,)), arrays))
        carried = outputs[-1][0]
    joined = [add_joined(program, [out[i] for out in outputs], 0) for i in (0, 1)]
    return [carried.shaped((1, 1, carried.size)), *(s.shaped(states[0].shape) for s in joined)]


def _gru(
    program: Program, node: fx.Node, x: Value, state: Value, weights: Any, *rest: Any
) -> list[Value]:
    outputs: list[Value] = []
    carried = x.shaped((x.size,))
    for place, arrays in enumerate(_layers(node, x, weights, rest)):
        h = add_sliced(program, state, 0, place, place + 1)
        carried = add_gru(program, carried, h.shaped((h.size,)), arrays)
        outputs.append(carried)
    joined = add_joined(program, outputs, 0).shaped(state.shape)
    return [carried.shaped((1, 1, carried.size)), joined]


def _layers(node: fx.Node, x: Value, weights: Sequence[Value], rest: Any) -> list[list[Array]]:
    """Return the weights of each layer of a recurrent operator that runs one step."""
    biased, layers, _, _, bidirectional, _ = rest
    if bidirectional or x.size != x.shape[-1]:
        raise unsupported(node, "it must go one way, one step at a time")
    each = 4 if biased else 2
    arrays = [weight.constant for weight in weights if weight.constant is not None]
    if len(arrays) != layers * each:
        raise unsupported(node, "projections and computed weights aren't known")
    return [arrays[i : i + each] for i in range(0, len(arrays), each)]


OPERATORS: Final[Mapping[str, Operator]] = {
    "gru": _gru,
    "lstm": _lstm,
}
