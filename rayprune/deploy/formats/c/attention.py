"""Scaled dot-product attention in C."""

from __future__ import annotations

import math
from typing import Final

from rayprune.deploy.formats.c.elementwise import literal
from rayprune.deploy.formats.c.program import Program, Value

ATTEND: Final = """
/* y = softmax(q k^T scale) v, head by head; of score there are as many as keys. */
static void attend_(const float *q, const float *k, const float *v, float scale, int heads,
                    int queries, int keys, int width, int values, float *score, float *y) {
  int h, t, s, i;
  for (h = 0; h < heads; h++, k += keys * width, v += keys * values)
    for (t = 0; t < queries; t++, q += width, y += values) {
      float most, sum = 0.0f;
      for (s = 0; s < keys; s++) {
        score[s] = 0.0f;
        for (i = 0; i < width; i++) score[s] += q[i] * k[s * width + i];
        score[s] *= scale;
      }
      /* A NaN is no larger, and makes all of them NaN below. */
      for (most = score[0], s = 1; s < keys; s++) most = score[s] > most ? score[s] : most;
      for (s = 0; s < keys; s++) {
        score[s] = exp_(score[s] - most);
        sum += score[s];
      }
      for (i = 0; i < values; i++) y[i] = 0.0f;
      for (s = 0; s < keys; s++)
        for (i = 0; i < values; i++) y[i] += score[s] / sum * v[s * values + i];
    }
}
"""


def add_attention(
    program: Program, q: Value, k: Value, v: Value, scale: float | None = None
) -> Value:
    """Add ``softmax(q k^T scale) v`` to a program.

    Args:
        program: is added to.
        q: queries, ``(..., queries, width)``; all axes before are heads.
        k: keys, ``(..., keys, width)``.
        v: values, ``(..., keys, value width)``.
        scale: by default one over the square root of the width.
    """
    (queries, width), (keys, values) = q.shape[-2:], v.shape[-2:]
    factor = 1.0 / math.sqrt(width) if scale is None else scale
    program.kernels.add("attend_")
    result, score = program.buffer((*q.shape[:-1], values)), program.buffer((keys,))
    given = ", ".join(program.pointer(x) for x in (q, k, v))
    sizes = f"{math.prod(q.shape[:-2])}, {queries}, {keys}, {width}, {values}"
    program.add(f"attend_({given}, {literal(factor)}, {sizes}, {score.pointer}, {result.pointer});")
    return result
