"""A recurrent layer that sees one step at a time, written out as two matrix products.

A policy acts on one observation, so that there is no sequence. ONNX's LSTM wants one all the same:
of a cell of 64 units it takes half of a call in ONNX Runtime to give states and outputs the shapes
that torch has. And where a NaN comes in, ONNX Runtime's GRU gives numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import Graph, Node
from torch.nn.functional import linear

from rayprune.deploy.policy.capture import quiet

_ATEN = torch.ops.aten
_LSTM = _ATEN.lstm.input
_GRU, _RNN_TANH, _RNN_RELU = _ATEN.gru.input, _ATEN.rnn_tanh.input, _ATEN.rnn_relu.input
_RECURRENT = (_LSTM, _GRU, _RNN_TANH, _RNN_RELU)
_UNSQUEEZE = _ATEN.unsqueeze.default
_SQUEEZE, _SQUEEZES, _SELECT = _ATEN.squeeze.dim, _ATEN.squeeze.dims, _ATEN.select.int
_ALONG_LAST = (
    _ATEN.linear.default,
    _ATEN.relu.default,
    _ATEN.tanh.default,
    _ATEN.silu.default,
    _ATEN.elu.default,
    _ATEN.sigmoid.default,
)
"""What gives each vector along the last axis its own, whatever other axes there are."""


def sees_single_steps(captured: ExportedProgram) -> bool:
    """Whether a graph has recurrent layers, all of one direction and given one step at a time."""
    layers = [node for node in captured.graph.nodes if node.target in _RECURRENT]
    return bool(layers) and all(_sees_one_step(node) for node in layers)


def written_out(captured: ExportedProgram) -> nn.Module:
    """Return a module whose recurrent layers are matrix products, without a time axis around them.

    Args:
        captured: a graph that `sees_single_steps`.
    """
    with quiet():
        plain = captured.run_decompositions(_STEPS)
        module: Any = plain.module(check_guards=False)
    graph: Graph = module.graph
    for node in list(graph.nodes):
        if node.target is _UNSQUEEZE:
            _carry_down(graph, node)
    for node in list(graph.nodes):
        _cancel(node)
    graph.eliminate_dead_code()
    module.recompile()
    return module  # type: ignore[no-any-return]


def _carry_down(graph: Graph, unsqueeze: Node) -> None:
    """Move a new axis behind the Linears and elementwise operators that work beside it."""
    source, axis = unsqueeze.args
    for user in list(unsqueeze.users):
        last = len(unsqueeze.meta["val"].shape) - 1
        if user.target not in _ALONG_LAST or user.args[0] is not unsqueeze or axis in (-1, last):
            continue
        with graph.inserting_before(user):
            flat = graph.call_function(user.target, (source, *user.args[1:]), user.kwargs)
            again = graph.call_function(_UNSQUEEZE, (flat, axis))
        again.meta["val"] = user.meta["val"]
        user.replace_all_uses_with(again)
        graph.erase_node(user)
        _carry_down(graph, again)


def _cancel(node: Node) -> None:
    """Let who reads ``node`` read what it was made of, if it takes back what was added there."""
    arguments: Any = node.args
    held = arguments[0] if arguments else None
    if not isinstance(held, Node) or held.target is not _UNSQUEEZE:
        return
    source: Any = held.args[0]
    axis = held.args[1]
    takes_back: dict[Any, tuple[Any, ...]] = {
        _SQUEEZE: (axis,),
        _SQUEEZES: ([axis],),
        _SELECT: (axis, 0),
    }
    if tuple(arguments[1:]) == takes_back.get(node.target):
        node.replace_all_uses_with(source)


def lstm_step(
    inputs: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute what ``aten.lstm.input`` does of a sequence of length one, in one direction.

    Args:
        inputs: ``(batch, 1, features)``, or ``(1, batch, features)`` unless ``batch_first``.
        states: hidden and cell state, ``(layers, batch, units)`` each.
        weights: of each layer the input's, the hidden state's, and with ``has_biases`` two biases.
        has_biases: as torch says.
        num_layers: as torch says.
        dropout: unused: a policy that acts drops nothing.
        train: unused.
        bidirectional: False.
        batch_first: as torch says.

    Returns:
        The outputs, shaped like ``inputs``, and both states.
    """
    axis = 1 if batch_first else 0
    step, each = inputs.squeeze(axis), 4 if has_biases else 2
    hidden, cells = [], []
    for layer in range(num_layers):
        read, recall, *biases = weights[each * layer : each * (layer + 1)]
        step, cell = _cell(step, states[0][layer], states[1][layer], read, recall, biases)
        hidden.append(step)
        cells.append(cell)
    return step.unsqueeze(axis), _stacked(hidden), _stacked(cells)


def _stacked(states: list[Tensor]) -> Tensor:
    # Of one, an axis that `_cancel` knows how to take back.
    return states[0].unsqueeze(0) if len(states) == 1 else torch.stack(states)


def _cell(
    step: Tensor, hidden: Tensor, cell: Tensor, read: Tensor, recall: Tensor, biases: list[Tensor]
) -> tuple[Tensor, Tensor]:
    gates = torch.addmm(biases[0] + biases[1], step, read.t()) if biases else step @ read.t()
    gates = torch.addmm(gates, hidden, recall.t())
    let_in, forget, new, out = gates.chunk(4, dim=1)
    cell = forget.sigmoid() * cell + let_in.sigmoid() * new.tanh()
    return out.sigmoid() * cell.tanh(), cell


def _hidden_step(cell: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, Tensor]]:
    """Return what computes one step of layers whose only state is the hidden one.

    What it returns takes what ``aten.gru.input`` takes, of a sequence of length one, and gives the
    outputs, shaped like the inputs, and the state.
    """

    def step(
        inputs: Tensor,
        state: Tensor,
        weights: Sequence[Tensor],
        has_biases: bool,
        num_layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
        batch_first: bool,
    ) -> tuple[Tensor, Tensor]:
        axis = 1 if batch_first else 0
        given, each = inputs.squeeze(axis), 4 if has_biases else 2
        hidden = []
        for layer in range(num_layers):
            read, recall, *biases = weights[each * layer : each * (layer + 1)]
            shifts: Sequence[Tensor | None] = biases or [None, None]
            given = cell(linear(given, read, shifts[0]), state[layer], recall, shifts[1])
            hidden.append(given)
        return given.unsqueeze(axis), _stacked(hidden)

    return step


def _gru_cell(read: Tensor, hidden: Tensor, recall: Tensor, bias: Tensor | None) -> Tensor:
    held = linear(hidden, recall, bias)
    reset, update, fresh = read.chunk(3, dim=1)
    held_reset, held_update, held_fresh = held.chunk(3, dim=1)
    new = (fresh + (reset + held_reset).sigmoid() * held_fresh).tanh()
    keep = (update + held_update).sigmoid()
    return (1.0 - keep) * new + keep * hidden


gru_step = _hidden_step(_gru_cell)
"""One step of ``aten.gru.input``; see `lstm_step`."""


def _plain_cell(act: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    return lambda read, hidden, recall, bias: act(read + linear(hidden, recall, bias))


_STEPS: Final[dict[Any, Callable[..., Any]]] = {
    _LSTM: lstm_step,
    _GRU: gru_step,
    _RNN_TANH: _hidden_step(_plain_cell(torch.tanh)),
    _RNN_RELU: _hidden_step(_plain_cell(torch.relu)),
}


def _sees_one_step(node: Any) -> bool:
    inputs, _, weights, has_biases, layers, _, _, bidirectional, batch_first = node.args
    # A projection of the hidden state (`proj_size`) would be one weight more in each layer.
    plain = not bidirectional and len(weights) == layers * (4 if has_biases else 2)
    return plain and inputs.meta["val"].shape[1 if batch_first else 0] == 1
