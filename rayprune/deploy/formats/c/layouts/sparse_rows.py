"""Layout ``linear_rows``: each row as the list of its weights (compressed sparse rows)."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Final

import numpy as np

from rayprune.deploy.formats.c.layouts.base import Cost, Layout, narrowest
from rayprune.deploy.formats.c.layouts.costs import Machine, instructions_of_lists
from rayprune.deploy.formats.c.program import Program
from rayprune.deploy.policy.interface import Array

_ROWS: Final = """
/* y = bias + w x: row by row, each with the columns that it lives on. */
static void linear_rows_{bits}(const float *w, const uint{bits}_t *column,
                          const uint{bits}_t *counts, const float *bias, int rows, const float *x,
                          float *y) {{
  int r, n;
  for (r = 0; r < rows; r++) {{
    float a = bias[r], b = 0.0f, c = 0.0f, d = 0.0f;
    for (n = counts[r]; n > 3; n -= 4, w += 4, column += 4) {{
      a += w[0] * x[column[0]];
      b += w[1] * x[column[1]];
      c += w[2] * x[column[2]];
      d += w[3] * x[column[3]];
    }}
    for (; n > 0; n--) a += *w++ * x[*column++];
    y[r] = (a + c) + (b + d);
  }}
}}
"""


def rows_text(bits: int) -> str:
    """Return the kernel for column numbers of 8 or 16 bits."""
    return _ROWS.format(bits=bits)


class SparseRows(Layout):
    """Only weights that aren't zero, each with its column."""

    name, code = "linear_rows", 260

    @cached_property
    def counts(self) -> Array:
        """How many weights each row has."""
        counts: Array = np.count_nonzero(self.weight, axis=1)
        return counts

    @cached_property
    def numbers(self) -> np.dtype[Any]:
        """The type of column numbers."""
        return narrowest(self.columns, self.counts)

    @property
    def kernel(self) -> str:
        """See `Layout.kernel`."""
        return f"{self.name}_{8 * self.numbers.itemsize}"

    def cost(self, machine: Machine) -> Cost:
        """See `Layout.cost`."""
        size = self.numbers.itemsize
        tables = (4 + size) * self.counts.sum() + size * self.rows
        return Cost(int(tables), float(instructions_of_lists(self.counts, machine).sum()))

    def add(self, program: Program, bias: str, when: str) -> str:
        """See `Layout.add`."""
        program.need(self.kernel, when=when)
        rows, columns = self.weight.nonzero()
        names = [
            program.constant(self.weight[rows, columns].astype(np.float32), when=when),
            program.constant(columns.astype(self.numbers), when=when),
            program.constant(self.counts.astype(self.numbers), when=when),
        ]
        return f"{self.kernel}({', '.join(names)}, {bias}, {self.rows}, {{x}}, {{y}});"
