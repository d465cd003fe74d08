"""Recurrent states: inputs that feed a recurrent layer's state, and outputs that return it."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field

from torch import fx

from rayprune.deploy.compaction.module_calls import operator_name
from rayprune.deploy.compaction.operators.tensors import CUTS, MOVES, SAME
from rayprune.deploy.compaction.trace import Trace

_CARRIES = MOVES | CUTS | SAME | {"index"}
_LAYERS = ("lstm", "gru", "rnn_tanh", "rnn_relu")
_CELLS = ("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell")
"""What a cell gives is its state."""


@dataclass
class States:
    """Which inputs and outputs of a forward are recurrent states."""

    inputs: set[fx.Node] = field(default_factory=set)
    outputs: set[int] = field(default_factory=set)


def find_states(traced: Trace) -> States:
    """Find the layers whose states all come from inputs, and those inputs and outputs."""
    states = States()
    stateful: set[fx.Node] = set()
    for node in traced.graph.nodes:
        if operator_name(node) in (*_LAYERS, *_CELLS):
            given = node.args[1] if isinstance(node.args[1], (list, tuple)) else [node.args[1]]
            sources = {_source(state) for state in given if isinstance(state, fx.Node)}
            if sources and sources <= set(traced.inputs):
                states.inputs |= sources
                stateful.add(node)
            elif operator_name(node) in _CELLS and {_layer(x) for x in sources} <= stateful:
                stateful.add(node)  # the next step
    given_out = [_source(output) for output in traced.outputs]
    for place, source in enumerate(given_out):
        layer = _layer(source)
        if layer in stateful and _is_state(source, layer, given_out):
            states.outputs.add(place)
    return states


def _is_state(source: fx.Node, layer: fx.Node, outputs: list[fx.Node]) -> bool:
    """Whether what a layer gives is its state, and not what is made of it for others to read."""
    if operator_name(layer) in _CELLS:
        return outputs.count(source) == 1  # given twice it is either
    return source is not layer and bool(source.args[1] != 0)


def _layer(node: fx.Node) -> fx.Node:
    """Return the layer that gave something, of several things."""
    given = node.args[0] if node.target is operator.getitem else node
    return given if isinstance(given, fx.Node) else node


def _source(node: fx.Node) -> fx.Node:
    while operator_name(node) in _CARRIES:
        first = node.args[0][0] if isinstance(node.args[0], (list, tuple)) else node.args[0]
        if not isinstance(first, fx.Node):
            break
        node = first
    return node
