"""How wide the registers are of the machine that a file is compiled for, as macros in C.

One source adapts to AVX-512, AVX, SSE and NEON, and to whatever has scalar registers only: kernels
are written in tiles of 16, 8 or 4 rows, and a tile is as many variables as it takes registers. They
are spelled out, for at ``-O2`` and ``-Os`` compilers leave arrays of sums in memory.
"""

from __future__ import annotations

from typing import Final

ROWS: Final = 16
"""Of a group, at most: as many as the widest register holds."""

_HERE: Final = """#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#elif defined(__SSE2__) || defined(__aarch64__) || defined(__VSX__) || defined(__wasm_simd128__)
#define LANES 4
#endif
"""

_HEAD: Final = """
/* With finite mathematics only, compilers drop what lets a NaN through. */
#if (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__) || defined(_M_FP_FAST)
#error "-ffast-math (-Ofast, /fp:fast) hides NaNs: leave it out, or add -fno-finite-math-only"
#endif
/* On x87, floats are computed wider than they are stored. */
#if defined(__FLT_EVAL_METHOD__) && __FLT_EVAL_METHOD__ % 16 == 0
#define NARROW
#endif
/* Floats in a register. Vectors are GCC's, which clang has, too. */
#if defined(__GNUC__) && defined(NARROW) && !defined(POLICY_PLAIN)
{here}#endif
#ifndef LANES
#define LANES 1
#endif
/* A tile is 16 rows (or half of them, or a quarter) in variables s0, s1, ...: `m` for each. */
#if LANES > 1
/* Unaligned: observations may lie anywhere. */
typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint32_t bits __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
#define PICK(where, a, b) ((vec)(((bits)(where) & (bits)(a)) | (~(bits)(where) & (bits)(b))))
/* The last rows of a table are read as if there were 16. */
#define BEYOND 15
#define TABLE __attribute__((aligned(4 * LANES)))
#define ADD(s, l, w, x) s##l += ((const vec *)(w))[l] * (x);
#else
typedef float vec;
#define BEYOND 0
#define TABLE
#ifdef __FP_FAST_FMAF
#define ADD(s, l, w, x) s##l = __builtin_fmaf((w)[l], (x), s##l);
#else
#define ADD(s, l, w, x) s##l += (w)[l] * (x);
#endif
#endif
#define UP(n) (((n) + LANES - 1) / LANES * LANES)
#define FROM(s, l, p, _) vec s##l = ((const vec *)(p))[l];
#define ZERO(s, l, p, _) vec s##l = {{0}};
#define JOIN(s, l, p, t) s##l += t##l;
#define INTO(s, l, p, _) ((vec *)(p))[l] = s##l;
/* Groups of no more rows than SMALLER are taken in small tiles, SMALL_ROWS at a time. */
#if LANES == 16
#define SMALLER 8
#define SMALL_ROWS 8
#define TILE(m, s, p, x) m(s, 0, p, x)
/* Eight rows would leave half of a register empty. */
typedef float vec8 __attribute__((vector_size(32), aligned(4), may_alias));
#define ADD_8(s, l, w, x) s##l += *(const vec8 *)(w) * (x);
#define FROM_8(s, l, p, _) vec8 s##l = *(const vec8 *)(p);
#define ZERO_8(s, l, p, _) vec8 s##l = {{0}};
#define JOIN_8(s, l, p, t) s##l += t##l;
#define INTO_8(s, l, p, _) *(vec8 *)(p) = s##l;
#define SMALL(m, s, p, x) m##_8(s, 0, p, x)
#elif LANES == 8
#define SMALLER 8
#define SMALL_ROWS 8
#define TILE(m, s, p, x) m(s, 0, p, x) m(s, 1, p, x)
#define SMALL(m, s, p, x) m(s, 0, p, x)
#elif LANES == 4
#define SMALLER 8
#define SMALL_ROWS 4
#define TILE(m, s, p, x) HALF(m, s, p, x) m(s, 2, p, x) m(s, 3, p, x)
#define HALF(m, s, p, x) m(s, 0, p, x) m(s, 1, p, x)
#define SMALL(m, s, p, x) m(s, 0, p, x)
#else
#define SMALLER 15
#define SMALL_ROWS 4
#define TILE(m, s, p, x) SMALL(m, s, p, x) m(s, 4, p, x) m(s, 5, p, x) m(s, 6, p, x) \\
  m(s, 7, p, x) m(s, 8, p, x) m(s, 9, p, x) m(s, 10, p, x) m(s, 11, p, x) \\
  m(s, 12, p, x) m(s, 13, p, x) m(s, 14, p, x) m(s, 15, p, x)
#define SMALL(m, s, p, x) m(s, 0, p, x) m(s, 1, p, x) m(s, 2, p, x) m(s, 3, p, x)
#endif
"""

MACROS: Final = (
    *(
        "NARROW",
        "LANES",
        "BEYOND",
        "TABLE",
        "vec",
        "bits",
        "ADD",
        "FROM",
        "ZERO",
        "JOIN",
        "INTO",
        "vec8",
    ),
    *(
        "ADD_8",
        "ZERO_8",
        "JOIN_8",
        "FROM_8",
        "INTO_8",
        "TILE",
        "HALF",
        "SMALL",
        "SMALLER",
        "SMALL_ROWS",
        "UP",
        "PICK",
    ),
)
"""What the head defines beside kernels."""


def head(lanes: int | None) -> str:
    """Return what follows the includes.

    Args:
        lanes: floats in a register, whatever the compiler says of the machine; None asks it.
    """
    return _HEAD.format(here=_HERE if lanes is None else f"#define LANES {lanes}\n")
