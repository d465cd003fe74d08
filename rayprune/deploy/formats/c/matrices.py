"""How a matrix is laid out in C: blocks of 16 output rows, all columns or only the living ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from rayprune.deploy.formats.c.program import Program, Value
from rayprune.deploy.policy.interface import Array

ROWS: Final = 16
"""Of a block; `rayprune.pruning.granularity.block` masks such blocks."""
_SPARSE_BELOW: Final = 0.8
"""Share of living blocks under which skipping the others gains more than their indices cost."""

_ALIKE: Final = 4
"""So many rows with the same columns are worth a block of 16 that isn't full."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """A matrix in blocks of 16 rows by one column."""

    order: Array | None
    """Which row stands in which place, -1 for none, ``(blocks * 16,)``; None for as they come."""
    begins: Array
    """Where each block row's columns begin, ``(blocks + 1,)``."""
    columns: Array
    values: Array
    """``(len(columns), 16)``."""
    total: int
    """How many blocks there would be of a matrix without zeros."""

    @property
    def density(self) -> float:
        """Share of the blocks that aren't all zero."""
        return len(self.columns) / self.total if self.total else 0.0


def blocks_of(weight: Array) -> Blocks:
    """Return a matrix's blocks, its rows regrouped if that leaves fewer.

    Compaction takes rows out of blocks, after which those that were pruned together no longer
    stand together. Rows that live on the same columns are then put beside each other.

    Args:
        weight: ``(out, in)``.
    """
    found = [_blocks(weight, order) for order in (_natural(len(weight)), _regrouped(weight))]
    # Only for a clear gain: regrouped rows are written one by one.
    if len(found[1].columns) < 0.9 * len(found[0].columns):
        return found[1]
    return replace(found[0], order=None)


def _regrouped(weight: Array) -> Array:
    """Return an order in which rows that live on the same columns fill blocks of their own."""
    patterns: dict[bytes, list[int]] = {}
    for row, living in enumerate(weight != 0):
        patterns.setdefault(living.tobytes(), []).append(row)
    alike = [rows for rows in patterns.values() if len(rows) >= _ALIKE]
    rest = [row for rows in patterns.values() if len(rows) < _ALIKE for row in rows]
    padded = [np.pad(rows, (0, -len(rows) % ROWS), constant_values=-1) for rows in [*alike, rest]]
    return np.concatenate(padded).astype(int)


def _blocks(weight: Array, order: Array) -> Blocks:
    padded = np.concatenate([weight, np.zeros((1, weight.shape[1]), weight.dtype)])[order]
    stacked = padded.reshape(-1, ROWS, weight.shape[1])
    living = (stacked != 0).any(axis=1)
    begins = np.concatenate([[0], living.sum(axis=1).cumsum()])
    block, columns = living.nonzero()
    return Blocks(order, begins, columns, stacked[block, :, columns], living.size)


def add_linear(program: Program, x: Value, weight: Array, bias: Array | None) -> Value:
    """Add ``weight @ x + bias`` to a program.

    Args:
        program: is added to.
        x: its last axis is the matrix's input; the others are rows of a batch.
        weight: ``(out, in)``.
        bias: ``(out,)``, or None for zeros.
    """
    out, size = weight.shape
    shift = np.zeros(out, np.float32) if bias is None else bias
    held = blocks_of(weight)
    if held.density < _SPARSE_BELOW and size <= np.iinfo(np.uint16).max:
        call, order = _sparse(program, held, shift, size), held.order
    else:
        call, order = _dense(program, weight, shift), None
    layout = {"rows": out, "columns": size, "density": round(held.density, 4)}
    program.layouts.append({**layout, "layout": call.split("(")[0]})
    result = program.buffer((*x.shape[:-1], out))
    source = program.pointer(x)
    if x.size == size and order is None:
        program.add(call.format(x=source, y=result.pointer))
        return result
    # Whole blocks are written, which would reach into the next row; or rows stand elsewhere.
    whole = program.buffer((out if order is None else len(order),))
    place = "i" if order is None else f"{program.constant(_places(order, out))}[i]"
    for row in range(x.size // size):
        program.add(call.format(x=f"{source} + {row * size}", y=whole.pointer))
        program.loop(out, f"{result.pointer}[{row * out} + i] = {whole.pointer}[{place}];")
    return result


def _places(order: Array, rows: int) -> Array:
    """Return where each row stands."""
    places = np.empty(rows, np.uint16)
    places[order[order >= 0]] = np.flatnonzero(order >= 0)
    return places


def _sparse(program: Program, held: Blocks, bias: Array, columns: int) -> str:
    """Lay down the living blocks; return the call that multiplies, of ``x`` to ``y``."""
    order = held.order if held.order is not None else _natural(len(bias))
    program.kernels |= {"linear_blocks", "odd_", "spoil_"}
    names = [
        program.constant(held.values.astype(np.float32)),
        program.constant(held.columns.astype(np.uint16)),
        program.constant(held.begins.astype(np.uint32)),
        program.constant(np.append(bias, 0).astype(np.float32)[order]),
    ]
    rows = len(order)
    return (
        f"linear_blocks({', '.join(names)}, {rows // ROWS}, {{x}}, {{y}}); "
        f"if (odd) spoil_({{x}}, {columns}, {{y}}, {rows});"
    )


def _dense(program: Program, weight: Array, bias: Array) -> str:
    """Lay down a whole matrix; return the call that multiplies, of ``x`` to ``y``."""
    program.kernels.add("linear_dense")
    rows = _natural(len(weight))
    padded = np.concatenate([weight, np.zeros((1, weight.shape[1]), weight.dtype)])[rows]
    tiles = padded.reshape(-1, ROWS, weight.shape[1]).transpose(0, 2, 1).astype(np.float32)
    shift = program.constant(np.append(bias, 0).astype(np.float32)[rows])
    size = f"{len(tiles)}, {weight.shape[1]}"
    return f"linear_dense({program.constant(tiles)}, {shift}, {size}, {{x}}, {{y}});"


def _natural(rows: int) -> Array:
    order = np.full(rows + -rows % ROWS, -1)
    order[:rows] = np.arange(rows)
    return order
