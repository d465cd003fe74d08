"""The registry of layouts, and which of them a matrix gets."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from rayprune.deploy.formats.c.layouts.base import MOST_COLUMNS, Layout
from rayprune.deploy.formats.c.layouts.blocks import Blocks
from rayprune.deploy.formats.c.layouts.costs import Machine
from rayprune.deploy.formats.c.layouts.dense import Dense
from rayprune.deploy.formats.c.layouts.sparse_rows import SparseRows
from rayprune.deploy.policy.interface import Array

LAYOUTS: Final[Mapping[str, type[Layout]]] = {
    layout.name: layout for layout in (Dense, Blocks, SparseRows)
}


def cheapest(weight: Array, there: Collection[str]) -> dict[Machine, Layout]:
    """Return the layout with the least product of bytes and instructions, for each machine.

    Args:
        weight: ``(out, in)``.
        there: kernels that the file has already: another's bytes count, too.
    """
    dense = Dense(weight)
    if weight.all() or weight.shape[1] > MOST_COLUMNS:
        return {"scalar": dense, "vector": dense}
    found: list[Layout] = [layout(weight) for layout in LAYOUTS.values()]
    machines: tuple[Machine, ...] = ("scalar", "vector")
    return {
        machine: min(found, key=lambda each: _price(each, machine, there)) for machine in machines
    }


def _price(layout: Layout, machine: Machine, there: Collection[str]) -> float:
    """Return bytes times instructions: half of the bytes is worth twice the instructions."""
    cost = layout.cost(machine)
    code = 0 if layout.kernel in there else layout.code
    return (cost.bytes + code) * cost.instructions
