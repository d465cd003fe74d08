"""The C functions that a generated file is made with, as text; each stands in it only if used."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from rayprune.deploy.formats.c.attention import ATTEND, MULTIPLY, SOFTMAX
from rayprune.deploy.formats.c.convolution import CONVOLVE, POOL
from rayprune.deploy.formats.c.exponentials import EXP, EXPS, SIGMOID, SIGMOIDS, TANH, TANHS
from rayprune.deploy.formats.c.integer.kernels import INTEGER_KERNELS
from rayprune.deploy.formats.c.layouts.blocks import blocks_text
from rayprune.deploy.formats.c.layouts.dense import DENSE
from rayprune.deploy.formats.c.layouts.sparse_rows import rows_text

_ODD: Final = """
/* Whether any of n numbers is NaN or infinite. */
static int odd_(const float *x, int n) {
  int i, found = 0;
  for (i = 0; i < n; i++) found |= x[i] - x[i] != 0.0f;
  return found;
}
"""

_SPOIL: Final = """
/* What a matrix's zeros, which are left out, make of NaN and infinity: NaN in every row. */
static void spoil_(const float *x, int columns, float *y, int rows) {
  int i, k;
  for (k = 0; k < columns; k++)
    if (odd_(x + k, 1))
      for (i = 0; i < rows; i++) y[i] = x[k] - x[k];
}
"""

_NAN: Final = """
/* Whether any of n numbers is NaN. */
static int nan_(const float *x, int n) {
  int i, found = 0;
  for (i = 0; i < n; i++) found |= x[i] != x[i];
  return found;
}
"""

KERNELS: Final[Mapping[str, tuple[tuple[str, ...], str]]] = {
    "linear_dense": ((), DENSE),
    **{f"linear_blocks_{bits}": ((), blocks_text(bits)) for bits in (8, 16)},
    **{f"linear_rows_{bits}": ((), rows_text(bits)) for bits in (8, 16)},
    "exp_": ((), EXP),
    "tanh_": ((), TANH),
    "sigmoid_": (("exp_",), SIGMOID),
    "exps_": (("exp_",), EXPS),
    "tanhs_": (("tanh_",), TANHS),
    "sigmoids_": (("exp_", "sigmoid_"), SIGMOIDS),
    "softmax_": (("exp_", "exps_"), SOFTMAX),
    "attend_": (("exp_", "exps_", "softmax_"), ATTEND),
    "multiply_": ((), MULTIPLY),
    "convolve": ((), CONVOLVE),
    "pool": ((), POOL),
    **INTEGER_KERNELS,
    "odd_": ((), _ODD),
    "nan_": ((), _NAN),
    "spoil_": (("odd_",), _SPOIL),
    # A comparison with NaN is false, so that the NaN has to be what is taken then.
    "at_least_": (
        (),
        "static float at_least_(float low, float x) { return x < low ? low : x; }\n",
    ),
    "at_most_": (
        (),
        "static float at_most_(float high, float x) { return x > high ? high : x; }\n",
    ),
    "min_": ((), "static float min_(float a, float b) { return a < b || a != a ? a : b; }\n"),
    "max_": ((), "static float max_(float a, float b) { return a > b || a != a ? a : b; }\n"),
}
"""Name -> the kernels that it needs, and its text."""


def texts(used: Iterable[str], used_when: Mapping[str, Iterable[str]]) -> str:
    """Return the functions named and what they need, each once, in a fixed order.

    Args:
        used: kernels that are always needed.
        used_when: kernels -> conditions of the preprocessor under which they are.
    """
    always = {needed for name in used for needed in (name, *KERNELS[name][0])}
    sometimes: dict[str, set[str]] = {}
    for name, conditions in used_when.items():
        for needed in {name, *KERNELS[name][0]} - always:
            sometimes.setdefault(needed, set()).update(conditions)
    found = ""
    for name, (_, text) in KERNELS.items():
        if name in always:
            found += text
        elif name in sometimes:
            condition = " || ".join(f"({each})" for each in sorted(sometimes[name]))
            found += f"\n#if {condition}{text}#endif\n"
    return found
