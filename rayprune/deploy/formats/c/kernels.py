"""The C functions that a generated file is made with, as text; each stands in it only if used."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from rayprune.deploy.formats.c.attention import ATTEND, MULTIPLY, SOFTMAX
from rayprune.deploy.formats.c.convolution import CONVOLVE_8, CONVOLVE_16, POOL
from rayprune.deploy.formats.c.integer.kernels import INTEGER_KERNELS

HEAD: Final = """
/* With finite mathematics only, compilers drop what lets a NaN through. */
#if (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__) || defined(_M_FP_FAST)
#error "-ffast-math (-Ofast, /fp:fast) hides NaNs: leave it out, or add -fno-finite-math-only"
#endif
/* On x87, floats are computed wider than they are stored. */
#if defined(__FLT_EVAL_METHOD__) && __FLT_EVAL_METHOD__ % 16 == 0
#define NARROW
#endif
#if defined(__GNUC__) && defined(NARROW) && !defined(POLICY_PLAIN)
#define LANES {lanes}
#define VECTORS (16 / LANES)
#define UNROLL {unroll}
/* Unaligned: constants and observations may lie anywhere. */
typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
#endif
"""
"""What follows the includes; a compiler without GCC's vectors takes the plain loops."""

_LINEAR: Final = """
/* y[16 b + l] = bias[16 b + l] + sum over k of w[k][l] x[{column}] */
static void {name}({parameters}, const float *x, float *y) {{
  int b, l, n;
  for (b = 0; b < blocks; b++, y += 16, bias += 16) {{
    int k = {first};
    const int count = {last} - k;
#ifdef LANES
    vec sum[UNROLL][VECTORS];
    int u;
    for (l = 0; l < VECTORS; l++) sum[0][l] = ((const vec *)bias)[l];
    for (u = 1; u < UNROLL; u++) for (l = 0; l < VECTORS; l++) sum[u][l] = sum[0][l] * 0.0f;
    for (n = count / UNROLL; n > 0; n--, k += UNROLL, w += 16 * UNROLL)
      for (u = 0; u < UNROLL; u++)
        for (l = 0; l < VECTORS; l++)
          sum[u][l] += ((const vec *)(w + 16 * u))[l] * x[{unrolled}];
    for (n = count % UNROLL; n > 0; n--, k++, w += 16)
      for (l = 0; l < VECTORS; l++) sum[0][l] += ((const vec *)w)[l] * x[{column}];
    for (u = 1; u < UNROLL; u++) for (l = 0; l < VECTORS; l++) sum[0][l] += sum[u][l];
    for (l = 0; l < VECTORS; l++) ((vec *)y)[l] = sum[0][l];
#else
    for (l = 0; l < 16; l++) y[l] = bias[l];
    for (n = count; n > 0; n--, k++, w += 16)
      for (l = 0; l < 16; l++) y[l] += w[l] * x[{column}];
#endif
  }}
}}
"""

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

_EXP: Final = """
/* 2^(x log2 e): the whole part by the exponent's bits, the rest by its series. */
static float exp_(float x) {
  union { uint32_t u; float f; } power;
  float whole, r;
  /* One comparison a statement, and no branch: so that compilers make vectors of it. NaN stays. */
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
  return power.f * (1.0f + r * (1.0f + r * (0.5f + r * (1.66666667e-1f + r * (4.16666667e-2f
    + r * (8.33333333e-3f + r * (1.38888889e-3f + r * 1.98412698e-4f)))))));
}
"""

KERNELS: Final[Mapping[str, tuple[tuple[str, ...], str]]] = {
    "linear_dense": (
        (),
        _LINEAR.format(
            name="linear_dense",
            parameters="const float *w, const float *bias, int blocks, int columns",
            column="k",
            unrolled="k + u",
            first="0",
            last="columns",
        ),
    ),
    "linear_blocks": (
        (),
        _LINEAR.format(
            name="linear_blocks",
            parameters="const float *w, const uint16_t *column, const uint32_t *begin,\n"
            "                          const float *bias, int blocks",
            column="column[k]",
            unrolled="column[k + u]",
            first="(int)begin[b]",
            last="(int)begin[b + 1]",
        ),
    ),
    "exp_": ((), _EXP),
    "tanh_": (
        ("exp_",),
        "static float tanh_(float x) { return 1.0f - 2.0f / (exp_(2.0f * x) + 1.0f); }\n",
    ),
    "sigmoid_": (
        ("exp_",),
        "static float sigmoid_(float x) { return 1.0f / (1.0f + exp_(-x)); }\n",
    ),
    "softmax_": (("exp_",), SOFTMAX),
    "attend_": (("softmax_",), ATTEND),
    "multiply_": ((), MULTIPLY),
    "convolve_8": ((), CONVOLVE_8),
    "convolve_16": ((), CONVOLVE_16),
    "pool": ((), POOL),
    **INTEGER_KERNELS,
    "odd_": ((), _ODD),
    "nan_": ((), _NAN),
    "spoil_": ((), _SPOIL),
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


def texts(used: Iterable[str]) -> str:
    """Return the functions named and what they need, each once, in a fixed order."""
    wanted = set(used)
    for name in used:
        wanted |= set(KERNELS[name][0])
    return "".join(text for name, (_, text) in KERNELS.items() if name in wanted)
