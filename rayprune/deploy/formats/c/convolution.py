"""Convolution and pooling over images, in C."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from rayprune.deploy.formats.c.matrices import ROWS
from rayprune.deploy.formats.c.program import Program, Value
from rayprune.deploy.policy.interface import Array

Pair = tuple[int, int]
_HALF: Final = ROWS // 2

_CONVOLVE: Final = """
/* A convolution without padding: {filters} filters at a time, and {places} places side by side. */
static void convolve_{filters}(const float *w, const float *bias, int filters, int channels,
                        int height, int width, int kh, int kw, int sy, int sx, const float *x,
                        float *y) {{
  const int oh = (height - kh) / sy + 1, ow = (width - kw) / sx + 1, all = oh * ow;
  int f, o, c, ky, kx, l, p;
  for (f = 0; f < filters; f += {filters}, w += {filters}L * channels * kh * kw)
    for (o = 0; o < all; o += {places}) {{
      const float *in[{places}], *k = w;
      float out[{places}][{filters}];
#ifdef LANES
      vec sum[{places}][{filters} / LANES];
#endif
      for (p = 0; p < {places}; p++) {{
        /* Places beyond the last are the last again. */
        const int place = o + p < all ? o + p : all - 1;
        in[p] = x + (long)(place / ow) * sy * width + (long)(place % ow) * sx;
      }}
#ifdef LANES
      for (p = 0; p < {places}; p++)
        for (l = 0; l < {filters} / LANES; l++) sum[p][l] = ((const vec *)(bias + f))[l];
#else
      for (p = 0; p < {places}; p++) for (l = 0; l < {filters}; l++) out[p][l] = bias[f + l];
#endif
      for (c = 0; c < channels; c++)
        for (ky = 0; ky < kh; ky++) {{
          const long row = ((long)c * height + ky) * width;
          for (kx = 0; kx < kw; kx++, k += {filters})
#ifdef LANES
            for (p = 0; p < {places}; p++)
              for (l = 0; l < {filters} / LANES; l++)
                sum[p][l] += ((const vec *)k)[l] * in[p][row + kx];
#else
            for (p = 0; p < {places}; p++)
              for (l = 0; l < {filters}; l++) out[p][l] += k[l] * in[p][row + kx];
#endif
        }}
#ifdef LANES
      for (p = 0; p < {places}; p++)
        for (l = 0; l < {filters} / LANES; l++) ((vec *)out[p])[l] = sum[p][l];
#endif
      for (l = 0; l < {filters} && f + l < filters; l++)
        for (p = 0; p < {places} && o + p < all; p++) y[(long)(f + l) * all + o + p] = out[p][l];
    }}
}}
"""
CONVOLVE_8: Final = _CONVOLVE.format(filters=8, places=8)
CONVOLVE_16: Final = _CONVOLVE.format(filters=16, places=4)

POOL: Final = """
/* The largest of each window; what lies beyond the borders doesn't count. */
static void pool(int channels, int height, int width, int kh, int kw, int sy, int sx, int py,
                 int px, int oh, int ow, const float *x, float *y) {
  int c, oy, ox, ky, kx;
  for (c = 0; c < channels; c++, x += (long)height * width)
    for (oy = 0; oy < oh; oy++)
      for (ox = 0; ox < ow; ox++, y++) {
        int first = 1;
        float v;
        for (ky = 0; ky < kh; ky++)
          for (kx = 0; kx < kw; kx++) {
            const int iy = oy * sy - py + ky, ix = ox * sx - px + kx;
            if (iy < 0 || iy >= height || ix < 0 || ix >= width) continue;
            v = x[iy * width + ix];
            /* Once it is NaN, nothing is larger. */
            if (first || v > *y || v != v) *y = v;
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
    filters, _, kh, kw = weight.shape
    height, width = x.shape[-2:]
    out = ((height - kh) // stride[0] + 1, (width - kw) // stride[1] + 1)
    result = program.buffer((1, filters, *out))
    shift = np.zeros(filters, np.float32) if bias is None else bias
    for begin, end, tile in _tiles(filters, program.lanes):
        some = (weight[begin:end], shift[begin:end])
        place = f"{result.pointer} + {begin * out[0] * out[1]}"
        _add_tiles(program, x, *some, stride, tile, place)
    return result


def _add_tiles(
    program: Program, x: Value, weight: Array, bias: Array, stride: Pair, tile: int, place: str
) -> None:
    """Add filters that are computed ``tile`` at a time, and write them to ``place``."""
    filters, channels, kh, kw = weight.shape
    rest = -filters % tile
    padded = np.pad(weight, ((0, rest), (0, 0), (0, 0), (0, 0)))
    tiles = padded.reshape(-1, tile, channels, kh, kw).transpose(0, 2, 3, 4, 1)
    names = [
        program.constant(tiles.astype(np.float32)),
        program.constant(np.pad(bias, (0, rest))),
    ]
    kernel = f"convolve_{tile}"
    program.kernels.add(kernel)
    program.layouts.append(
        {"filters": filters, "channels": channels, "kernel": [kh, kw], "layout": kernel}
    )
    sizes = ", ".join(map(str, (filters, channels, *x.shape[-2:], kh, kw, *stride)))
    program.add(f"{kernel}({', '.join(names)}, {sizes}, {program.pointer(x)}, {place});")


def _tiles(filters: int, lanes: int) -> Iterator[tuple[int, int, int]]:
    """Yield ranges of filters, and how many of each are computed at a time."""
    whole = filters - filters % ROWS
    if whole:
        yield 0, whole, ROWS
    if filters > whole:
        narrow = filters - whole <= _HALF and lanes <= _HALF
        yield whole, filters, _HALF if narrow else ROWS


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
