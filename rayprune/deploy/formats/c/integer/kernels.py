"""The C functions of whole numbers; what each computes is said in `rayprune.deploy.integer`.

None of them lets a compiler contract a product and a sum of floats, whatever its options: the
rounded product goes through a comparison first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_QUANTISE: Final = """
/* The whole number nearest to x / step, halves away from zero, NaN 0; less an offset. */
static void quantise_{bits}(const float *x, int n, float inverse, float low, float high,
                       int offset, int{bits}_t *q) {{
  int i;
  for (i = 0; i < n; i++) {{
    float t = x[i] * inverse;
    t = t < low ? low : t;
    t = t > high ? high : t;
    t = t == t ? t : 0.0f;
    q[i] = (int{bits}_t)((int32_t)(t + (t < 0.0f ? -0.5f : 0.5f)) + offset);
  }}
}}
"""

_RESCALE: Final = """
/* x m / 2^s, halves up; a right shift of a negative number keeps its sign with every compiler. */
static int32_t rescale_(int32_t x, int32_t m, int s, int32_t low, int32_t high) {
  const int64_t wide = ((int64_t)x * m + ((int64_t)1 << (s - 1))) >> s;
  return wide < low ? low : wide > high ? high : (int32_t)wide;
}
"""

_TANH: Final = """
/* tanh(x / 2^12) 2^15: straight lines between the entries of a table, 2^s apart. */
static int32_t table_tanh_(const int16_t *table, int s, int32_t x) {
  const int32_t size = x < 0 ? -x : x;
  const int16_t *const at = table + (size >> s);
  const int32_t rest = size & ((1 << s) - 1);
  const int32_t y = at[0] + (((at[1] - at[0]) * rest + (1 << (s - 1))) >> s);
  return x < 0 ? -y : y;
}
"""

_BLANK: Final = """
/* Whatever is NaN in x makes all of y NaN. */
static void blank_(const float *x, int columns, float *y, int rows) {
  int i, k;
  for (k = 0; k < columns; k++)
    if (x[k] != x[k])
      for (i = 0; i < rows; i++) y[i] = x[k];
}
"""

INTEGER_KERNELS: Final[Mapping[str, tuple[tuple[str, ...], str]]] = {
    "quantise_8": ((), _QUANTISE.format(bits=8)),
    "quantise_16": ((), _QUANTISE.format(bits=16)),
    "rescale_": ((), _RESCALE),
    "table_tanh_": ((), _TANH),
    "blank_": ((), _BLANK),
}
"""Name -> the kernels that it needs, and its text."""
