"""How LSTMs and GRUs read units and make new ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from rayprune.deploy.compaction.abstract_values import NAN, AbstractValue, along, columns, unknown
from rayprune.deploy.compaction.channels import FREE, PINNED
from rayprune.deploy.compaction.findings import Arguments, Findings, Shapes, Use, layer_of, named

_CANDIDATE: Final = 2
"""Which gate holds the new content: the third of an LSTM (i, f, g, o) and of a GRU (r, z, n), and
the only one of an RNN."""


@dataclass(frozen=True, slots=True)
class _Strand:
    """One direction of one stacked layer."""

    own: Sequence[str]
    """Its parameters: input weight, hidden weight, and their biases if it has them."""
    units: Tensor
    size: int

    def gates(self, findings: Findings) -> int:
        return findings.parameters[self.own[0]].shape[0] // self.size

    def by_gate(self, findings: Findings, names: Sequence[str]) -> Tensor:
        """Return parameters side by side, shape ``(gates, units, ...)``."""
        gates = self.gates(findings)
        return torch.cat([findings.parameters[n].reshape(gates, self.size, -1) for n in names], -1)

    def still(self, findings: Findings) -> Tensor:
        """Return which units nothing moves away from zero: no weight, no bias adds content.

        Then an LSTM's c is its forget gate times 0, plus its input gate times tanh(0).
        """
        content = self.by_gate(findings, self.own)[min(_CANDIDATE, self.gates(findings) - 1)]
        return (content == 0).all(-1)

    def lonely(self, findings: Findings) -> Tensor:
        """Return which units no weight reaches."""
        return (self.by_gate(findings, self.own[:2]) == 0).all(-1).all(0)


def read_recurrent(findings: Findings, given: Arguments, shapes: Shapes) -> list[AbstractValue]:
    """Read an LSTM, GRU or RNN. All its layers and directions lose the same hidden units.

    A unit without incoming weights still moves by its biases. It is the constant 0 only if its new
    content is, and its state starts at 0.
    """
    names = [parameter.parameter for parameter in given["params"]]
    first, size = names[0], shapes[1][-1]
    directions = 2 if given["bidirectional"] else 1
    per_strand = len(names) // (given["num_layers"] * directions)
    if per_strand not in (2, 4):
        findings.hold(given["input"].channels, f"{named(layer_of(first))} has a projection")
        return [unknown(shape) for shape in shapes]
    units = findings.units_of(first, size)
    from_zero = _from_zero(findings, given["hx"], units, layer_of(first))
    below = columns(given["input"], -1)
    seen = (
        findings.columns_of(given["input"], below, named(layer_of(first))),
        below.constants,
    )
    starts = range(0, len(names), per_strand)
    strands = [_Strand(names[start : start + per_strand], units, size) for start in starts]
    # In all strands, because they share what states come in.
    still = torch.stack([strand.still(findings) for strand in strands]).all(0) & from_zero
    for first_of in range(0, len(strands), directions):
        for strand in strands[first_of : first_of + directions]:
            _read(findings, strand, seen, still)
        known = torch.where(still, 0.0, torch.nan).double().repeat(directions)
        seen = (units.repeat(directions), known)
    findings.grounded.append(units[still])
    output = AbstractValue(along(seen[0], shapes[0], -1), along(seen[1], shapes[0], -1))
    return [output, *(unknown(shape, channels=units) for shape in shapes[1:])]


def read_cell(findings: Findings, given: Arguments, shapes: Shapes) -> list[AbstractValue]:
    """Read one step of an LSTMCell, GRUCell or RNNCell."""
    parameters = [given[key] for key in ("w_ih", "w_hh", "b_ih", "b_hh") if given[key] is not None]
    own, size = [parameter.parameter for parameter in parameters], shapes[0][-1]
    units = findings.units_of(own[0], size)
    strand = _Strand(own, units, size)
    layer = layer_of(own[0])
    still = strand.still(findings) & _from_zero(findings, given["hx"], units, layer)
    below = columns(given["input"], -1)
    seen = findings.columns_of(given["input"], below, named(layer)), below.constants
    _read(findings, strand, seen, still)
    known = torch.where(still, 0.0, torch.nan).double()
    return [AbstractValue(along(units, shape, -1), along(known, shape, -1)) for shape in shapes]


def _read(findings: Findings, strand: _Strand, seen: tuple[Tensor, Tensor], still: Tensor) -> None:
    own, units = strand.own, strand.units
    rows = units.repeat(strand.gates(findings))
    known = torch.where(still, 0.0, torch.nan).double()
    bias, hidden_bias = own[2:] if len(own) == 4 else ("", "")
    never = torch.full_like(known, NAN)
    columns_in, constants = seen
    stuck = torch.full_like(constants, NAN) if bias else constants.where(constants != 0, NAN)
    findings.uses.append(Use(own[0], bias, rows, columns_in, constants, stuck))
    findings.uses.append(Use(own[1], hidden_bias, rows, units, known, never))
    findings.note(
        units[strand.lonely(findings) & ~still],
        "nothing comes in, but biases move them from step to step",
    )


def _from_zero(findings: Findings, states: Any, units: Tensor, layer: str) -> Tensor:
    """Tie states to the units that they are of; return which of these are at zero; bool."""
    given = list(states) if isinstance(states, (list, tuple)) else [states]
    return torch.stack([_meet(findings, state, units, layer) for state in given]).all(0)


def _meet(findings: Findings, state: AbstractValue, units: Tensor, layer: str) -> Tensor:
    zeros = (state.channels == FREE) & (state.known == 0)
    if bool(zeros.all()):
        return torch.ones(units.shape, dtype=torch.bool)  # the layer's own, sized by itself
    if bool((state.channels <= PINNED).any()):
        findings.hold(units, f"the state of {named(layer)} is an input; see `shrink_states`")
    findings.channels.tie(state.channels, units)
    # A state that comes in is what went out a step before, and zero at an episode's start.
    given = [*findings.states.values(), torch.empty(0, dtype=torch.long)]
    told = torch.isin(state.channels, torch.cat(given)).all()
    return (columns(state, -1).constants == 0) | told
