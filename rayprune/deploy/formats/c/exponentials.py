"""The exponential function and what is made of it, in C: of one number, and of arrays.

Arrays are gone through in registers' widths where there are vectors, by the same formulas. libm's
functions would cost more than the layers.
"""

from __future__ import annotations

from typing import Final

_SERIES: Final = (
    "1.0f + r * (1.0f + r * (0.5f + r * (1.66666667e-1f + r * (4.16666667e-2f\n"
    "    + r * (8.33333333e-3f + r * (1.38888889e-3f + r * 1.98412698e-4f))))))"
)

EXP: Final = f"""
/* 2^(x log2 e): the whole part by the exponent's bits, the rest by its series. */
static float exp_(float x) {{
  union {{ uint32_t u; float f; }} power;
  float whole, r;
  /* A NaN is neither, and stays. */
  x = x < -87.0f ? -87.0f : x;
  x = x > 89.0f ? 89.0f : x; /* whose power is infinite */
#ifdef NARROW
  /* Beside 1.5 * 2^23 a float has no bits for fractions, and those of the whole part come last. */
  power.f = x * 1.44269504f + 12582912.0f;
  whole = power.f - 12582912.0f;
#else
  power.u = x == x ? (uint32_t)(x * 1.44269504f + 128.5f) - 128u : 0u;
  whole = x == x ? (float)(int32_t)power.u : x;
#endif
  power.u = (power.u << 23) + 0x3f800000u;
  r = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
  return power.f * ({_SERIES});
}}
"""

_TOP: Final = (
    "1.0f + u * (0.134597257f + u * (0.00359000801f\n"
    "    + u * (2.22159979e-05f + u * 1.57276485e-08f)))"
)
_BOTTOM: Final = (
    "1.0f + u * (0.467930555f + u * (0.0262335949f\n"
    "    + u * (0.000344210741f + u * 8.71380507e-07f)))"
)

TANH: Final = f"""
/* x P(x^2) / Q(x^2), within 5e-9 of it up to 7.75, and 4e-7 below 1 beyond: never above. */
static float tanh_(float x) {{
  float u;
  x = x < -7.75f ? -7.75f : x;
  x = x > 7.75f ? 7.75f : x;
  u = x * x;
  return x * ({_TOP})
    / ({_BOTTOM});
}}
"""

SIGMOID: Final = "static float sigmoid_(float x) { return 1.0f / (1.0f + exp_(-x)); }\n"


def _array(name: str, of: str, number: str, low: float, high: float, body: str) -> str:
    """Return a kernel that goes through an array.

    Args:
        name: the kernel's.
        of: what a vector `v` begins as, of the vector `v` that is read.
        number: the function of one number.
        low: no element of the vector is below it.
        high: nor above.
        body: what makes `v` of it.
    """
    return f"""
/* y = {number}(x), for n numbers; y may be x. */
static void {name}(const float *x, int n, float *y) {{
  int i = 0;
#if LANES > 1
  const vec zero = {{0}}, low = zero + {low}f, high = zero + {high}f;
  for (; i + LANES <= n; i += LANES) {{
    vec v = {of};
    v = PICK(v < low, low, v);
    v = PICK(v > high, high, v);
{body}    *(vec *)(y + i) = v;
  }}
#endif
  for (; i < n; i++) y[i] = {number}(x[i]);
}}
"""


_READ: Final = "*(const vec *)(x + i)"
_POWER: Final = f"""    {{
      const vec p = v * 1.44269504f + 12582912.0f, whole = p - 12582912.0f;
      const vec r = (v - whole * 0.693359375f) + whole * 2.12194440e-4f;
      v = (vec)(((bits)p << 23) + 0x3f800000u) * ({_SERIES});
    }}
"""
_RATIO: Final = f"""    {{
      const vec u = v * v;
      v = v * ({_TOP})
        / ({_BOTTOM});
    }}
"""

EXPS: Final = _array("exps_", _READ, "exp_", -87.0, 89.0, _POWER)
SIGMOIDS: Final = _array(
    "sigmoids_", f"-{_READ}", "sigmoid_", -87.0, 89.0, f"{_POWER}    v = 1.0f / (1.0f + v);\n"
)
TANHS: Final = _array("tanhs_", _READ, "tanh_", -7.75, 7.75, _RATIO)
