"""Recurrent states: inputs that feed a recurrent layer's state, and outputs that return it."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field

from torch import fx

from rayprune.deploy.compaction.module_calls import operator_name
from rayprune.deploy.compaction.operators.tensors import CUTS, MOVES, SAME
from rayprune.deploy.compaction.trace import Trace

_CARRIES = MOVES | CUTS | SAME


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
        if operator_name(node) in ("lstm", "gru", "rnn_tanh", "rnn_relu"):
            given = node.args[1] if isinstance(node.args[1], (list, tuple)) else [node.args[1]]
            sources = {_source(state) for state in given if isinstance(state, fx.Node)}
            if sources and sources <= set(traced.inputs):
                states.inputs |= sources
                stateful.add(node)
    for place, output in enumerate(traced.outputs):
        source = _source(output)
        if source.target is operator.getitem and source.args[0] in stateful and source.args[1] != 0:
            states.outputs.add(place)
    return states


def _source(node: fx.Node) -> fx.Node:
    while operator_name(node) in _CARRIES and isinstance(node.args[0], fx.Node):
        node = node.args[0]
    return node
