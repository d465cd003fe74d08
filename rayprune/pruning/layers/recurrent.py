"""Recurrent layers and cells unrolled in plain torch, so that states and gates can be seen.

torch's own run in one fused call that shows neither the states in between nor the
gradients at the gates. Fisher information and input norms need both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rayprune.errors import InputError
from rayprune.pruning.layers.kinds import kind_of


@dataclass(frozen=True, slots=True)
class Direction:
    """One direction of one stacked layer, over time."""

    suffix: str
    """Of its parameters' names: ``_l0``, ``_l1_reverse``; empty in a cell."""
    inputs: Tensor
    """What its input weights see, shape ``(batch, time, in)``."""
    hidden: Tensor
    """What its hidden weights see, the state before each step, ``(batch, time, hidden)``."""
    outputs: Tensor
    """Shape ``(batch, time, hidden)``."""
    input_gates: Tensor
    """Zeros added to ``W_ih x``, for their gradient; ``(batch, time, gates * hidden)``."""
    hidden_gates: Tensor
    """Likewise for ``W_hh h``."""


@dataclass(frozen=True, slots=True)
class Unrolled:
    """What a recurrent layer computes, step by step."""

    output: Tensor
    """As the layer returns it."""
    finals: tuple[Tensor, ...]
    """Final states, as the layer returns them: h, and c of an LSTM."""
    directions: list[Direction]


def unroll(layer: nn.Module, x: Tensor, states: Sequence[Tensor] = ()) -> Unrolled:
    """Compute what ``layer(x, states)`` does, in a graph of its own. Leaves dropout out.

    Args:
        layer: an LSTM, GRU or RNN of any depth, direction and projection, or a cell of either.
        x: its input, batched or not, time first or not.
        states: its initial states: h, and c of an LSTM; zeros if left out.

    >>> layer, x = nn.GRU(2, 3, batch_first=True), torch.ones(1, 4, 2)
    >>> torch.allclose(unroll(layer, x).output, layer(x)[0], atol=1e-6)
    True
    """
    if not isinstance(x, Tensor):
        raise InputError("A packed sequence can't be looked into. Pass a padded batch.")
    if isinstance(layer, nn.RNNCellBase):
        return _unrolled_cell(layer, x.detach(), [state.detach() for state in states])
    assert isinstance(layer, nn.RNNBase)
    batched = x.dim() == 3
    x = x.detach() if batched else x.detach().unsqueeze(0 if layer.batch_first else 1)
    x = x if layer.batch_first else x.transpose(0, 1)
    initial = _initial(layer, x, [s.detach() if batched else s.detach()[:, None] for s in states])
    directions: list[Direction] = []
    finals: list[tuple[Tensor, ...]] = []
    ways = 2 if layer.bidirectional else 1
    for depth in range(layer.num_layers):
        sides = []
        for direction in range(ways):
            start = [state[depth * ways + direction] for state in initial]
            one, final = _run(layer, f"_l{depth}{'_reverse' * direction}", x, start)
            directions.append(one)
            finals.append(final)
            sides.append(one.outputs)
        x = torch.cat(sides, dim=-1)
    output = x if layer.batch_first else x.transpose(0, 1)
    stacked = tuple(torch.stack(states) for states in zip(*finals, strict=True))
    if batched:
        return Unrolled(output, stacked, directions)
    squeezed = tuple(state.squeeze(1) for state in stacked)
    return Unrolled(output.squeeze(0 if layer.batch_first else 1), squeezed, directions)


def _initial(layer: nn.RNNBase, x: Tensor, states: list[Tensor]) -> list[Tensor]:
    if states:
        return states
    rows = layer.num_layers * (2 if layer.bidirectional else 1)
    h = x.new_zeros(rows, x.shape[0], layer.proj_size or layer.hidden_size)
    if not isinstance(layer, nn.LSTM):
        return [h]
    return [h, x.new_zeros(rows, x.shape[0], layer.hidden_size)]


def _unrolled_cell(layer: nn.RNNCellBase, x: Tensor, states: list[Tensor]) -> Unrolled:
    """Compute one call of a cell, as a sequence of one step."""
    batched = x.dim() == 2
    if not batched:
        x, states = x[None], [state[None] for state in states]
    if not states:
        kept = 2 if isinstance(layer, nn.LSTMCell) else 1
        states = [x.new_zeros(len(x), layer.hidden_size) for _ in range(kept)]
    one, finals = _run(layer, "", x[:, None], states)
    if not batched:
        finals = tuple(state.squeeze(0) for state in finals)
    return Unrolled(finals[0], finals[1:], [one])


def _run(
    layer: nn.RNNBase | nn.RNNCellBase, suffix: str, x: Tensor, state: list[Tensor]
) -> tuple[Direction, tuple[Tensor, ...]]:
    batch, time, _ = x.shape
    rows = kind_of(layer).gates * layer.hidden_size
    gates = [x.new_zeros(batch, time, rows).requires_grad_() for _ in range(2)]
    w_ih, w_hh = (getattr(layer, f"weight_{kind}{suffix}").detach() for kind in ("ih", "hh"))
    b_ih, b_hh = (
        getattr(layer, f"bias_{kind}{suffix}").detach() if layer.bias else x.new_zeros(rows)
        for kind in ("ih", "hh")
    )
    project = getattr(layer, f"weight_hr{suffix}", None)
    from_input = x @ w_ih.T + b_ih + gates[0]
    before: list[Tensor] = []
    after: list[Tensor] = []
    steps = range(time - 1, -1, -1) if suffix.endswith("_reverse") else range(time)
    for step in steps:
        before.append(state[0])
        from_hidden = state[0] @ w_hh.T + b_hh + gates[1][:, step]
        if isinstance(layer, (nn.LSTM, nn.LSTMCell)):
            state = _lstm_cell(from_input[:, step] + from_hidden, state[1])
        elif isinstance(layer, (nn.GRU, nn.GRUCell)):
            state = [_gru_cell(from_input[:, step], from_hidden, state[0])]
        else:
            together = from_input[:, step] + from_hidden
            state = [together.tanh() if layer.nonlinearity == "tanh" else together.relu()]
        if project is not None:
            state[0] = state[0] @ project.detach().T
        after.append(state[0])
    if suffix.endswith("_reverse"):
        before.reverse()
        after.reverse()
    one = Direction(suffix, x, torch.stack(before, 1), torch.stack(after, 1), gates[0], gates[1])
    return one, tuple(state)


def _lstm_cell(gates: Tensor, cell: Tensor) -> list[Tensor]:
    enter, forget, new, leave = gates.chunk(4, dim=-1)
    cell = forget.sigmoid() * cell + enter.sigmoid() * new.tanh()
    return [leave.sigmoid() * cell.tanh(), cell]


def _gru_cell(from_input: Tensor, from_hidden: Tensor, hidden: Tensor) -> Tensor:
    (reset_x, update_x, new_x), (reset_h, update_h, new_h) = (
        gates.chunk(3, dim=-1) for gates in (from_input, from_hidden)
    )
    reset, update = (reset_x + reset_h).sigmoid(), (update_x + update_h).sigmoid()
    return (1 - update) * (new_x + reset * new_h).tanh() + update * hidden
