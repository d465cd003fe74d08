"""What the kernels cost, measured by `benchmarks/c_kernels.py`; see ADR 0048.

Scalar: instructions of a Cortex-M4 at ``-O2``, counted by QEMU. Vector: time on a machine with AVX2
(Zen 4), in thirds of a cycle, which is what a scalar instruction takes there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from rayprune.deploy.formats.c.registers import ROWS
from rayprune.deploy.policy.interface import Array

Machine = Literal["scalar", "vector"]
"""Registers of one float, or of several."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Costs:
    weight: float
    """A weight of a group."""
    column: float
    """A column of a tile: its input, the loop, and in vectors all of the weights."""
    number: float
    """The number of a column, where it is listed."""
    group: float
    """The beginning and the end of a group."""
    row: float
    """Those of each of its rows."""
    listed: float
    """A weight in a list."""
    list: float
    """The beginning and the end of a list."""


_COSTS: Final[Mapping[Machine, _Costs]] = {
    "scalar": _Costs(weight=2, column=4, number=2, group=40, row=6, listed=6, list=36),
    "vector": _Costs(weight=0, column=5, number=0, group=12, row=0, listed=3.3, list=6),
}


def instructions_of_groups(
    heights: Array, counts: Array, machine: Machine, *, listed: bool = False
) -> Array:
    """Return the instructions of each group of rows, ``(groups,)``.

    Args:
        heights: rows of each group, ``(groups,)``.
        counts: columns of each group.
        machine: what runs it.
        listed: whether columns are listed.
    """
    cost = _COSTS[machine]
    column = cost.column + (cost.number if listed else 0.0)
    tiles = _tiles(heights) if machine == "scalar" else 1
    each: Array = counts * (column * tiles + cost.weight * heights)
    return each + cost.group + cost.row * heights


def _tiles(heights: Array) -> Array:
    """Return in how many tiles groups are taken without vectors: 16 rows at once, 4, or 1."""
    return np.where(heights == ROWS, 1, np.where(heights < 4, heights, -(-heights // 4)))


def instructions_of_lists(counts: Array, machine: Machine) -> Array:
    """Return the instructions of each row that is a list of so many weights, ``(rows,)``."""
    each: Array = _COSTS[machine].listed * counts + _COSTS[machine].list
    return each
