"""Layout ``linear_blocks``: rows that live on the same columns, and only those columns.

Granularity ``block`` masks blocks of 16 rows by one column. Compaction takes rows out of them, but
the others keep their order: what is left of 16 rows is a group, of any height.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, Final

import numpy as np

from rayprune.deploy.formats.c.layouts.base import (
    Cost,
    Layout,
    groups_of,
    narrowest,
    stacked,
)
from rayprune.deploy.formats.c.layouts.costs import Machine, instructions_of_groups
from rayprune.deploy.formats.c.layouts.group import group_kernel
from rayprune.deploy.formats.c.program import Program
from rayprune.deploy.formats.c.registers import ROWS
from rayprune.deploy.policy.interface import Array

_BLOCKS: Final = """
/* y = bias + w x: groups of rows, each with the columns that it lives on. */
static void linear_blocks_{bits}(const float *w, const uint{bits}_t *column,
                            const uint{bits}_t *counts, const uint8_t *heights, const float *bias,
                            int groups, const float *x, float *y) {{
  int g;
  for (g = 0; g < groups; g++) {{
    const int height = heights[g], count = counts[g];
    group_blocks_{bits}(w, height, bias, count, column, x, y);
    w += (long)height * count;
    column += count;
    bias += height;
    y += height;
  }}
}}
"""


def blocks_text(bits: int) -> str:
    """Return the kernel for column numbers of 8 or 16 bits."""
    group = group_kernel(
        f"group_blocks_{bits}",
        f"const uint{bits}_t *column, ",
        "x[column[k]]",
        "x[column[k + {n}]]",
    )
    return group + _BLOCKS.format(bits=bits)


class Blocks(Layout):
    """Runs of rows, cut where they live on other columns."""

    name, code = "linear_blocks", 680

    @cached_property
    def heights(self) -> Array:
        """Of each group, in rows: the cut that costs least, a byte as much as an instruction."""
        living = self.weight != 0
        least, before = [0.0], [0]
        for end in range(1, self.rows + 1):
            some = living[max(0, end - ROWS) : end][::-1]
            heights = np.arange(1, len(some) + 1)
            columns = np.logical_or.accumulate(some).sum(axis=1)
            prices = self._tables(heights, columns)
            prices = prices + instructions_of_groups(heights, columns, "scalar", listed=True)
            before_it = np.array(least[end - len(some) : end])[::-1]
            price, begin = min(zip((before_it + prices).tolist(), end - heights, strict=True))
            least.append(price)
            before.append(int(begin))
        ends = [self.rows]
        while ends[-1]:
            ends.append(before[ends[-1]])
        return np.diff(ends[::-1])

    @cached_property
    def living(self) -> list[Array]:
        """The columns of each group."""
        groups = groups_of(self.heights)
        return [np.flatnonzero((self.weight[a:b] != 0).any(axis=0)) for a, b in groups]

    @property
    def counts(self) -> Array:
        """How many columns each group has."""
        return np.array([len(columns) for columns in self.living], int)

    @property
    def numbers(self) -> np.dtype[Any]:
        """The type of column numbers."""
        return narrowest(self.columns, self.counts)

    @property
    def kernel(self) -> str:
        """See `Layout.kernel`."""
        return f"{self.name}_{8 * self.numbers.itemsize}"

    @property
    def written_beyond(self) -> int:
        """See `Layout.written_beyond`."""
        return ROWS - int(self.heights[-1])

    def _tables(self, heights: Array, counts: Array) -> Array:
        """Return the bytes of groups of so many rows and columns."""
        size = 1 if self.columns <= 256 else 2
        bytes_of: Array = 4 * heights * counts + size * (counts + 1) + 1
        return bytes_of

    def cost(self, machine: Machine) -> Cost:
        """See `Layout.cost`."""
        groups = self.heights, self.counts
        instructions = instructions_of_groups(*groups, machine, listed=True)
        return Cost(int(self._tables(*groups).sum()), float(instructions.sum()))

    def add(self, program: Program, bias: str, when: str) -> str:
        """See `Layout.add`."""
        program.need(self.kernel, when=when)
        weights = stacked(self.weight, self.heights, self.living)
        names = [
            program.constant(weights, when=when, read_beyond=True),
            program.constant(np.concatenate(self.living).astype(self.numbers), when=when),
            program.constant(self.counts.astype(self.numbers), when=when),
            program.constant(self.heights.astype(np.uint8), when=when),
        ]
        return f"{self.kernel}({', '.join(names)}, {bias}, {len(self.heights)}, {{x}}, {{y}});"
