"""Convolution and pooling over images, in C."""

from __future__ import annotations

from typing import Final

import numpy as np

from rayprune.deploy.formats.c.layouts.base import natural, stacked
from rayprune.deploy.formats.c.program import Program, Value
from rayprune.deploy.policy.interface import Array

Pair = tuple[int, int]
_QUARTER: Final = 4
"""Filters are held in multiples of this: scalar registers hold so many sums for each place."""
_SETS: Final = "abcdefgh"


def _group(name: str, tile: str, rows: int, places: int) -> str:
    """Return the kernel of a group of filters: ``rows`` at a time, at ``places`` side by side."""
    sets = _SETS[:places]
    begin = "\n".join(f"    {tile}(FROM, {s}, bias + f, 0)" for s in sets)
    add = "\n".join(f"          {tile}(ADD, {s}, k, in[{p}][row + kx])" for p, s in enumerate(sets))
    end = "\n".join(f"    {tile}(INTO, {s}, out[{p}], 0)" for p, s in enumerate(sets))
    return f"""
static void {name}(const float *w, int stride, const float *bias, int filters, int channels,
                   int height, int width, int kh, int kw, int sy, int sx, const float *x,
                   float *y) {{
  const int oh = (height - kh) / sy + 1, ow = (width - kw) / sx + 1, all = oh * ow;
  int f, o, c, ky, kx, l, p;
  for (f = 0; f < filters; f += {rows})
    for (o = 0; o < all; o += {places}) {{
      const float *in[{places}], *k = w + f;
      float out[{places}][{rows}];
      for (p = 0; p < {places}; p++) {{
        /* Places beyond the last are the last again. */
        const int place = o + p < all ? o + p : all - 1;
        in[p] = x + (long)(place / ow) * sy * width + (long)(place % ow) * sx;
      }}
      {{
{begin}
      for (c = 0; c < channels; c++)
        for (ky = 0; ky < kh; ky++) {{
          const long row = ((long)c * height + ky) * width;
          for (kx = 0; kx < kw; kx++, k += stride) {{
{add}
          }}
        }}
{end}
      }}
      for (l = 0; l < {rows} && f + l < filters; l++)
        for (p = 0; p < {places} && o + p < all; p++) y[(long)(f + l) * all + o + p] = out[p][l];
    }}
}}
"""


CONVOLVE: Final = f"""
/* A convolution without padding, of a group of filters: some of them in registers, at places side
   by side. */
#if LANES == 16{_group("convolve_group", "TILE", 16, 8)}#elif LANES == 8{
    _group("convolve_group", "TILE", 16, 4)
}#elif LANES == 4{_group("convolve_group", "HALF", 8, 4)}#else{
    _group("convolve_group", "SMALL", 4, 4)
}#endif
#if LANES > 4{_group("convolve_small", "SMALL", 8, 8)}#endif

/* The same of all filters, in groups of 16. */
static void convolve(const float *w, const float *bias, int filters, int channels, int height,
                     int width, int kh, int kw, int sy, int sx, const float *x, float *y) {{
  const long all = (long)((height - kh) / sy + 1) * ((width - kw) / sx + 1);
  for (; filters > 0; filters -= 16, bias += 16, y += 16 * all) {{
    const int some = filters < 16 ? filters : 16, stride = (some + 3) / 4 * 4;
#if LANES > 4
    if (some <= 8)
      convolve_small(w, stride, bias, some, channels, height, width, kh, kw, sy, sx, x, y);
    else
#endif
    convolve_group(w, stride, bias, some, channels, height, width, kh, kw, sy, sx, x, y);
    w += (long)stride * channels * kh * kw;
  }}
}}
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
    shift = np.zeros(filters, np.float32) if bias is None else bias.astype(np.float32)
    table = program.constant(_stacked(weight), read_beyond=True)
    names = [table, program.constant(np.pad(shift, (0, -filters % _QUARTER)), read_beyond=True)]
    program.need("convolve")
    told = {"filters": filters, "channels": weight.shape[1], "kernel": [kh, kw]}
    program.layouts.append({**told, "layout": "convolve"})
    sizes = ", ".join(map(str, (*weight.shape[:2], height, width, kh, kw, *stride)))
    program.add(f"convolve({', '.join(names)}, {sizes}, {program.pointer(x)}, {result.pointer});")
    return result


def _stacked(weight: Array) -> Array:
    """Return the weights of groups of 16 filters, position by position of the kernel."""
    padded = np.pad(weight, ((0, -len(weight) % _QUARTER), (0, 0), (0, 0), (0, 0)))
    return stacked(padded.reshape(len(padded), -1), natural(len(padded)))


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
