"""Layout ``linear_dense``: all of a matrix, in groups of 16 rows, column by column."""

from __future__ import annotations

from typing import Final

import numpy as np

from rayprune.deploy.formats.c.layouts.base import Cost, Layout, natural, stacked
from rayprune.deploy.formats.c.layouts.costs import Machine, instructions_of_groups
from rayprune.deploy.formats.c.layouts.group import group_kernel
from rayprune.deploy.formats.c.program import Program

DENSE: Final = f"""{group_kernel("group_dense", "", "x[k]", "x[k + {n}]")}
/* y = bias + w x, of a whole matrix. */
static void linear_dense(const float *w, const float *bias, int rows, int columns, const float *x,
                         float *y) {{
  for (; rows > 0; rows -= 16, bias += 16, y += 16) {{
    const int height = rows < 16 ? rows : 16;
    group_dense(w, height, bias, columns, x, y);
    w += (long)height * columns;
  }}
}}
"""


class Dense(Layout):
    """Every weight."""

    name, code, complete = "linear_dense", 600, True

    @property
    def kernel(self) -> str:
        """See `Layout.kernel`."""
        return self.name

    def cost(self, machine: Machine) -> Cost:
        """See `Layout.cost`."""
        heights = natural(self.rows)
        counts = np.full(len(heights), self.columns)
        instructions = instructions_of_groups(heights, counts, machine)
        return Cost(4 * self.weight.size, float(instructions.sum()))

    def add(self, program: Program, bias: str, when: str) -> str:
        """See `Layout.add`."""
        program.need(self.name, when=when)
        table = stacked(self.weight, natural(self.rows))
        name = program.constant(table, when=when, read_beyond=True)
        return f"linear_dense({name}, {bias}, {self.rows}, {self.columns}, {{x}}, {{y}});"
