"""Convolution and pooling over images, in C."""

from __future__ import annotations

from typing import Final

import numpy as np

from rayprune.deploy.c.matrices import ROWS
from rayprune.deploy.c.program import Program, Value
from rayprune.deploy.interface import Array

Pair = tuple[int, int]

CONVOLVE: Final = """
/* A convolution without padding: 16 filters at a time, and 4 places beside each other. */
static void convolve(const float *w, const float *bias, int filters, int channels, int height,
                     int width, int kh, int kw, int sy, int sx, const float *x, float *y) {
  const int oh = (height - kh) / sy + 1, ow = (width - kw) / sx + 1;
  int f, oy, ox, c, ky, kx, l, p;
  for (f = 0; f < filters; f += 16, w += 16L * channels * kh * kw)
    for (oy = 0; oy < oh; oy++)
      for (ox = 0; ox < ow; ox += 4) {
        const int places = ow - ox < 4 ? ow - ox : 4;
        const float *k = w, *in = x + (long)oy * sy * width + (long)ox * sx;
        /* The last places of a row may be fewer: those beyond read the first again. */
        const int step1 = places > 1 ? sx : 0, step2 = places > 2 ? 2 * sx : 0;
        const int step3 = places > 3 ? 3 * sx : 0;
        float out[4][16];
#ifdef LANES
        vec sum[4][VECTORS];
        for (p = 0; p < 4; p++)
          for (l = 0; l < VECTORS; l++) sum[p][l] = ((const vec *)(bias + f))[l];
        for (c = 0; c < channels; c++)
          for (ky = 0; ky < kh; ky++) {
            const float *row = in + ((long)c * height + ky) * width;
            for (kx = 0; kx < kw; kx++, k += 16)
              for (l = 0; l < VECTORS; l++) {
                const vec weight = ((const vec *)k)[l];
                sum[0][l] += weight * row[kx];
                sum[1][l] += weight * row[kx + step1];
                sum[2][l] += weight * row[kx + step2];
                sum[3][l] += weight * row[kx + step3];
              }
          }
        for (p = 0; p < 4; p++) for (l = 0; l < VECTORS; l++) ((vec *)out[p])[l] = sum[p][l];
#else
        for (p = 0; p < 4; p++) for (l = 0; l < 16; l++) out[p][l] = bias[f + l];
        for (c = 0; c < channels; c++)
          for (ky = 0; ky < kh; ky++) {
            const float *row = in + ((long)c * height + ky) * width;
            for (kx = 0; kx < kw; kx++, k += 16)
              for (l = 0; l < 16; l++) {
                out[0][l] += k[l] * row[kx];
                out[1][l] += k[l] * row[kx + step1];
                out[2][l] += k[l] * row[kx + step2];
                out[3][l] += k[l] * row[kx + step3];
              }
          }
#endif
        for (l = 0; l < 16 && f + l < filters; l++)
          for (p = 0; p < places; p++) y[((long)(f + l) * oh + oy) * ow + ox + p] = out[p][l];
      }
}
"""

POOL: Final = """
/* The largest of each window; what lies beyond the borders doesn't count. */
static void pool(int channels, int height, int width, int kh, int kw, int sy, int sx, int py,
                 int px, int oh, int ow, const float *x, float *y) {
  int c, oy, ox, ky, kx;
  for (c = 0; c < channels; c++, x += (long)height * width)
    for (oy = 0; oy < oh; oy++)
      for (ox = 0; ox < ow; ox++, y++) {
        int first = 1;
        for (ky = 0; ky < kh; ky++)
          for (kx = 0; kx < kw; kx++) {
            const int iy = oy * sy - py + ky, ix = ox * sx - px + kx;
            if (iy < 0 || iy >= height || ix < 0 || ix >= width) continue;
            if (first || x[iy * width + ix] > *y) *y = x[iy * width + ix];
            first = 0;
          }
      }
}
"""


def add_convolution(
    program: Program, x: Value, weight: Array, bias: Array | None, stride: Pair
) -> Value:
    """Add a convolution of one image without padding, dilation or groups.

    Args:
        program: is added to.
        x: ``(1, channels, height, width)``.
        weight: ``(filters, channels, kernel height, kernel width)``.
        bias: ``(filters,)``, or None for zeros.
        stride: down, across.
    """
    filters, channels, kh, kw = weight.shape
    height, width = x.shape[-2:]
    padded = np.pad(weight, ((0, -filters % ROWS), (0, 0), (0, 0), (0, 0)))
    tiles = padded.reshape(-1, ROWS, channels, kh, kw).transpose(0, 2, 3, 4, 1)
    shift = np.zeros(filters, np.float32) if bias is None else bias
    names = [
        program.constant(tiles.astype(np.float32)),
        program.constant(np.pad(shift, (0, -filters % ROWS))),
    ]
    program.kernels.add("convolve")
    program.layouts.append(
        {"filters": filters, "channels": channels, "kernel": [kh, kw], "layout": "convolve"}
    )
    out = ((height - kh) // stride[0] + 1, (width - kw) // stride[1] + 1)
    result = program.buffer((1, filters, *out))
    sizes = (filters, channels, height, width, kh, kw, *stride)
    program.add(
        f"convolve({names[0]}, {names[1]}, {', '.join(map(str, sizes))}, "
        f"{program.pointer(x)}, {result.pointer});"
    )
    return result


def add_pool(
    program: Program, x: Value, kernel: Pair, stride: Pair, padding: Pair, out: Pair
) -> Value:
    """Add the maximum over windows of an image, ``(1, channels, height, width)``."""
    channels, height, width = x.shape[-3:]
    program.kernels.add("pool")
    result = program.buffer((1, channels, *out))
    sizes = (channels, height, width, *kernel, *stride, *padding, *out)
    program.add(f"pool({', '.join(map(str, sizes))}, {program.pointer(x)}, {result.pointer});")
    return result
