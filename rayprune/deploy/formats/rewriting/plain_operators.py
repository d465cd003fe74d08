"""Operators written out in plainer ones: cells, rarer activations, and what changes its input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.nn.functional import linear

from rayprune.deploy.policy.capture import quiet

_ATEN = torch.ops.aten


def in_plain_operators(captured: ExportedProgram) -> ExportedProgram:
    """Return a graph without the operators that are written out here, or itself if it has none.

    What changes a tensor in place, such as ``nn.ReLU(inplace=True)``, makes a new one there.
    """
    targets = [node.target for node in captured.graph.nodes if node.op == "call_function"]
    if not any(target in _WRITTEN or _changes_its_input(target) for target in targets):
        return captured
    with quiet():
        written: ExportedProgram = captured.run_decompositions(_WRITTEN)
    return written


def _changes_its_input(target: Any) -> bool:
    return isinstance(target, torch._ops.OpOverload) and target._schema.is_mutable


def _gru_cell(
    x: Tensor, hidden: Tensor, read: Tensor, recall: Tensor, *biases: Tensor | None
) -> Tensor:
    first, second = biases or (None, None)
    reset, update, fresh = linear(x, read, first).chunk(3, dim=1)
    held_reset, held_update, held_fresh = linear(hidden, recall, second).chunk(3, dim=1)
    new = (fresh + (reset + held_reset).sigmoid() * held_fresh).tanh()
    keep = (update + held_update).sigmoid()
    return new + keep * (hidden - new)


def _lstm_cell(
    x: Tensor, states: Sequence[Tensor], read: Tensor, recall: Tensor, *biases: Tensor | None
) -> tuple[Tensor, Tensor]:
    first, second = biases or (None, None)
    gates = linear(x, read, first) + linear(states[0], recall, second)
    let_in, forget, new, out = gates.chunk(4, dim=1)
    cell = forget.sigmoid() * states[1] + let_in.sigmoid() * new.tanh()
    return out.sigmoid() * cell.tanh(), cell


def _plain_cell(act: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    def cell(
        x: Tensor, hidden: Tensor, read: Tensor, recall: Tensor, *biases: Tensor | None
    ) -> Tensor:
        first, second = biases or (None, None)
        return act(linear(x, read, first) + linear(hidden, recall, second))

    return cell


def _prelu(x: Tensor, slope: Tensor) -> Tensor:
    laid = slope.reshape(-1, *(1 for _ in range(x.dim() - 2))) if slope.numel() > 1 else slope
    return x.relu() - laid * (-x).relu()


def _hardswish(x: Tensor) -> Tensor:
    return x * torch.nn.functional.hardtanh(x + 3.0, 0.0, 6.0) / 6.0


_WRITTEN: Final[dict[Any, Callable[..., Any]]] = {
    _ATEN.gru_cell.default: _gru_cell,
    _ATEN.lstm_cell.default: _lstm_cell,
    _ATEN.rnn_tanh_cell.default: _plain_cell(torch.tanh),
    _ATEN.rnn_relu_cell.default: _plain_cell(torch.relu),
    _ATEN.prelu.default: _prelu,
    _ATEN.hardswish.default: _hardswish,
}
