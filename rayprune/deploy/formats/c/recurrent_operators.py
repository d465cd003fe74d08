"""One step of an LSTM or GRU, in C."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rayprune.deploy.formats.c.data_movement import add_joined
from rayprune.deploy.formats.c.matrices import add_linear
from rayprune.deploy.formats.c.program import Program, Value
from rayprune.deploy.policy.interface import Array


def add_lstm(
    program: Program, x: Value, h: Value, c: Value, weights: Sequence[Array]
) -> tuple[Value, Value]:
    """Add a step of one LSTM layer; return the new ``h`` and ``c``.

    Args:
        program: is added to.
        x: ``(features,)``.
        h: ``(cell,)``.
        c: likewise.
        weights: of the input, of the state, and both biases if there are any; torch's gate order.
    """
    size = weights[1].shape[1]
    together = add_joined(program, [x, h], 0)
    # One product: the gates' sums of both parts, and fewer passes over the outputs.
    bias = weights[2] + weights[3] if len(weights) > 2 else None
    gates = add_linear(program, together, np.concatenate(weights[:2], axis=1), bias)
    next_h, next_c = program.buffer((size,)), program.buffer((size,))
    program.need("tanhs_", "sigmoids_")
    g, held = gates.pointer, program.pointer(c)
    program.add(
        f"sigmoids_({g}, {2 * size}, {g});",
        f"tanhs_({g} + {2 * size}, {size}, {g} + {2 * size});",
        f"sigmoids_({g} + {3 * size}, {size}, {g} + {3 * size});",
    )
    program.loop(
        size,
        f"{next_c.pointer}[i] = {g}[{size} + i] * {held}[i] + {g}[i] * {g}[{2 * size} + i];",
    )
    program.add(f"tanhs_({next_c.pointer}, UP({size}), {next_h.pointer});")
    program.loop(size, f"{next_h.pointer}[i] *= {g}[{3 * size} + i];")
    return next_h, next_c


def add_gru(program: Program, x: Value, h: Value, weights: Sequence[Array]) -> Value:
    """Add a step of one GRU layer; return the new ``h``. Arguments as in `add_lstm`."""
    size = weights[1].shape[1]
    biases: Sequence[Array | None] = list(weights[2:]) or [None, None]
    given = add_linear(program, x, weights[0], biases[0]).pointer
    held = add_linear(program, h, weights[1], biases[1]).pointer
    result, before = program.buffer((size,)), program.pointer(h)
    program.need("tanhs_", "sigmoids_")
    # Reset and update gates stand first, what is fresh behind them.
    program.loop(2 * size, f"{given}[i] += {held}[i];")
    program.add(f"sigmoids_({given}, {2 * size}, {given});")
    fresh, update = f"{given}[{2 * size} + i]", f"{given}[{size} + i]"
    program.loop(size, f"{fresh} += {given}[i] * {held}[{2 * size} + i];")
    program.add(f"tanhs_({given} + {2 * size}, {size}, {given} + {2 * size});")
    program.loop(
        size,
        f"{result.pointer}[i] = (1.0f - {update}) * {fresh} + {update} * {before}[i];",
    )
    return result
