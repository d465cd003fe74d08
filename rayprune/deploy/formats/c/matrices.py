"""A linear layer in C: its layout on each kind of machine, and the call."""

from __future__ import annotations

from typing import Final

import numpy as np

from rayprune.deploy.formats.c.layouts.base import Layout, groups_of, natural
from rayprune.deploy.formats.c.layouts.choice import cheapest
from rayprune.deploy.formats.c.layouts.costs import Machine
from rayprune.deploy.formats.c.program import Program, Value
from rayprune.deploy.policy.interface import Array

VECTORS: Final = "LANES > 1"
"""The condition of the preprocessor under which registers hold several floats."""


def add_linear(program: Program, x: Value, weight: Array, bias: Array | None) -> Value:
    """Add ``weight @ x + bias`` to a program.

    Args:
        program: is added to.
        x: its last axis is the matrix's input; the others are rows of a batch.
        weight: ``(out, in)``.
        bias: ``(out,)``, or None for zeros.
    """
    out, size = weight.shape
    shift = np.zeros(out, np.float32) if bias is None else bias.astype(np.float32)
    best = _best(program, weight)
    calls = _calls(program, best, program.constant(shift, read_beyond=True))
    beyond = best["vector"].written_beyond
    result = program.buffer((*x.shape[:-1], out), beyond=beyond)
    source = program.pointer(x)
    if x.size == size:
        _add(program, calls, source, result.pointer)
        return result
    # Whole registers are written, which would reach into the next row.
    whole = program.buffer((out,), beyond=beyond)
    for row in range(x.size // size):
        _add(program, calls, f"{source} + {row * size}", whole.pointer)
        program.loop(out, f"{result.pointer}[{row * out} + i] = {whole.pointer}[i];")
    return result


def _best(program: Program, weight: Array) -> dict[Machine, Layout]:
    """Return a matrix's layout on each kind of machine; one if the file is for one."""
    best = cheapest(weight, {*program.kernels, *program.kernels_when})
    if program.lanes is not None:
        best["scalar"] = best["vector"]
    _tell(program, weight, best)
    return best


def _calls(program: Program, best: dict[Machine, Layout], bias: str) -> list[tuple[str, str]]:
    """Lay a matrix down; return each call with the condition under which it is the one."""
    if best["scalar"].name == best["vector"].name:
        return [("", _call(program, best["vector"], bias, ""))]
    cases: tuple[tuple[Machine, str], ...] = (
        ("vector", VECTORS),
        ("scalar", f"!({VECTORS})"),
    )
    return [(when, _call(program, best[machine], bias, when)) for machine, when in cases]


def _call(program: Program, layout: Layout, bias: str, when: str) -> str:
    call = layout.add(program, bias, when)
    if layout.complete:
        return call
    program.need("odd_", "spoil_", when=when)
    return f"{call} if (odd) spoil_({{x}}, {layout.columns}, {{y}}, {layout.rows});"


def _add(program: Program, calls: list[tuple[str, str]], x: str, y: str) -> None:
    for place, (when, call) in enumerate(calls):
        if when:
            program.add("#else" if place else f"#if {when}")
        program.add(call.format(x=x, y=y))
    if len(calls) > 1:
        program.add("#endif")


def _tell(program: Program, weight: Array, best: dict[Machine, Layout]) -> None:
    """Say in the certificate how the matrix lies."""
    told: dict[str, object] = {"rows": len(weight), "columns": weight.shape[1]}
    blocks = [weight[a:b].any(axis=0) for a, b in groups_of(natural(len(weight)))]
    told["density"] = round(float(np.mean(weight != 0)), 4)
    told["block_density"] = round(float(np.mean(blocks)), 4)
    told["layout"] = best["vector"].name
    if best["scalar"].name != best["vector"].name:
        told["layout_without_vectors"] = best["scalar"].name
    program.layouts.append(told)
