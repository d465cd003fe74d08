"""Attention in C: in one operator, or by its products and softmax."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from rayprune.deploy.formats.c.elementwise import literal
from rayprune.deploy.formats.c.program import Program, Value
from rayprune.deploy.policy.interface import Array

ATTEND: Final = """
/* y = softmax(q k^T scale + mask) v, head by head; of score there are as many as keys. The mask may
   be none, or the same for all heads or queries: then its step from one to the next is 0. */
static void attend_(const float *q, const float *k, const float *v, const float *mask, int of_head,
                    int of_query, float scale, int heads, int queries, int keys, int width,
                    int values, float *score, float *y) {
  int h, t, s, i;
  for (h = 0; h < heads; h++, k += keys * width, v += keys * values)
    for (t = 0; t < queries; t++, q += width, y += values) {
      const float *m = mask ? mask + h * of_head + t * of_query : mask;
      int masked = m != 0;
      for (s = 0; s < keys; s++) {
        score[s] = 0.0f;
        for (i = 0; i < width; i++) score[s] += q[i] * k[s * width + i];
        score[s] *= scale;
        if (m) {
          score[s] += m[s];
          masked = masked && score[s] == -INFINITY;
        }
      }
      /* Where all keys are masked torch gives zeros. */
      for (i = 0; i < values; i++) y[i] = 0.0f;
      if (masked) continue;
      softmax_(score, keys, score);
      for (s = 0; s < keys; s++)
        for (i = 0; i < values; i++) y[i] += score[s] * v[s * values + i];
    }
}
"""

SOFTMAX: Final = """
/* y = softmax(x), over n numbers; y may be x. */
static void softmax_(const float *x, int n, float *y) {
  int s;
  float most = x[0], sum = 0.0f;
  /* A NaN is no larger, and makes all of them NaN below. */
  for (s = 1; s < n; s++) most = x[s] > most ? x[s] : most;
  for (s = 0; s < n; s++) y[s] = x[s] - most;
  exps_(y, n, y);
  for (s = 0; s < n; s++) sum += y[s];
  for (s = 0; s < n; s++) y[s] /= sum;
}
"""

MULTIPLY: Final = """
/* y = a b, matrix by matrix: rows by inner, and inner by columns. */
static void multiply_(const float *a, const float *b, int count, int rows, int inner, int columns,
                      float *y) {
  int c, r, i, j;
  for (c = 0; c < count; c++, b += inner * columns)
    for (r = 0; r < rows; r++, a += inner, y += columns) {
      for (j = 0; j < columns; j++) y[j] = 0.0f;
      for (i = 0; i < inner; i++)
        for (j = 0; j < columns; j++) y[j] += a[i] * b[i * columns + j];
    }
}
"""


def add_attention(
    program: Program,
    q: Value,
    k: Value,
    v: Value,
    mask: Value | None = None,
    *,
    scale: float | None = None,
    causal: bool = False,
) -> Value:
    """Add ``softmax(q k^T scale + mask) v`` to a program.

    Args:
        program: is added to.
        q: queries, ``(..., queries, width)``; all axes before are heads.
        k: keys, ``(..., keys, width)``.
        v: values, ``(..., keys, value width)``.
        mask: floats, or whether to look; it broadcasts to ``(..., queries, keys)``.
        scale: by default one over the square root of the width.
        causal: whether query ``t`` sees the first ``t + 1`` keys only.
    """
    (queries, width), (keys, values) = q.shape[-2:], v.shape[-2:]
    heads = math.prod(q.shape[:-2])
    factor = 1.0 / math.sqrt(width) if scale is None else scale
    program.kernels |= {"attend_", "softmax_"}
    program.headers.add("math")
    if causal:
        mask = Value("", (queries, keys), "uint8_t", np.tri(queries, keys, dtype=np.uint8))
    given = [program.pointer(x) for x in (q, k, v)]
    given += _masked(program, mask, keys)
    result, score = program.buffer((*q.shape[:-1], values)), program.buffer((keys,))
    sizes = f"{literal(factor)}, {heads}, {queries}, {keys}, {width}, {values}"
    program.add(f"attend_({', '.join(given)}, {sizes}, {score.pointer}, {result.pointer});")
    return result


def _masked(program: Program, mask: Value | None, keys: int) -> list[str]:
    """Return the mask's pointer, and its steps from head to head and from query to query."""
    if mask is None:
        return ["0", "0", "0"]
    of_head = math.prod(mask.shape[:-2])
    of_query = mask.shape[-2] if len(mask.shape) > 1 else 1
    if mask.constant is not None:
        mask = Value("", mask.shape, "float", _added(mask.constant))
    elif mask.ctype != "float":
        added = program.buffer(mask.shape)
        pointer = program.pointer(mask)
        program.loop(mask.size, f"{added.pointer}[i] = {pointer}[i] ? 0.0f : -INFINITY;")
        mask = added
    steps = [of_query * keys if of_head > 1 else 0, keys if of_query > 1 else 0]
    return [program.pointer(mask), *map(str, steps)]


def _added(mask: Array) -> Array:
    if np.issubdtype(mask.dtype, np.floating):
        return mask.astype(np.float32)
    return np.where(mask, 0.0, -np.inf).astype(np.float32)


def add_softmax(program: Program, x: Value) -> Value:
    """Add the softmax over the last axis to a program."""
    program.kernels.add("softmax_")
    result, source, size = program.buffer(x.shape), program.pointer(x), x.shape[-1]
    for row in range(0, x.size, size):
        program.add(f"softmax_({source} + {row}, {size}, {result.pointer} + {row});")
    return result


def add_product(program: Program, a: Value, b: Value) -> Value:
    """Add the products of two batches of matrices to a program, both of them computed.

    Args:
        program: is added to.
        a: ``(..., rows, inner)``.
        b: ``(..., inner, columns)``, of the same batch.
    """
    program.kernels.add("multiply_")
    result = program.buffer((*a.shape[:-1], b.shape[-1]))
    pointers = f"{program.pointer(a)}, {program.pointer(b)}"
    sizes = f"{math.prod(a.shape[:-2])}, {a.shape[-2]}, {a.shape[-1]}, {b.shape[-1]}"
    program.add(f"multiply_({pointers}, {sizes}, {result.pointer});")
    return result
