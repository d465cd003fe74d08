"""The kernel of a group: up to 16 rows that share their columns, in registers."""

from __future__ import annotations


def _sum(tile: str, column: str, ahead: str, *, pairs: bool) -> str:
    """Return what sums a tile over the columns: several sums side by side, where they overlap.

    Args:
        tile: the macro of the tile.
        column: the input of column ``k``.
        ahead: the input of the column ``{n}`` places behind it.
        pairs: whether registers of four floats hold two sums only.
    """
    later = [ahead.format(n=n) for n in (1, 2, 3)]
    two = f"""#if LANES == 4
      for (; k + 1 < count; k += 2, p += 2 * height) {{
        {tile}(ADD, a, p, {column})
        {tile}(ADD, b, p + height, {later[0]})
      }}
#else
"""
    begin, end = (two, "#endif\n") if pairs else ("", "")
    return f"""    {tile}(FROM, a, bias + l, 0)
#if LANES > 1
    if (count > 3) {{
      {tile}(ZERO, b, 0, 0)
{begin}      {tile}(ZERO, c, 0, 0)
      {tile}(ZERO, d, 0, 0)
      for (; k + 3 < count; k += 4, p += 4 * height) {{
        {tile}(ADD, a, p, {column})
        {tile}(ADD, b, p + height, {later[0]})
        {tile}(ADD, c, p + 2 * height, {later[1]})
        {tile}(ADD, d, p + 3 * height, {later[2]})
      }}
      {tile}(JOIN, a, 0, c)
      {tile}(JOIN, b, 0, d)
{end}      {tile}(JOIN, a, 0, b)
    }}
#endif
    for (; k < count; k++, p += height) {{
      {tile}(ADD, a, p, {column})
    }}
    {tile}(INTO, a, y + l, 0)
"""


def group_kernel(name: str, parameter: str, column: str, ahead: str) -> str:
    """Return the text of a kernel that multiplies one group.

    Weights lie column by column, as many rows each as the group has. Vectors read what stands
    behind the last row of a column as if it were rows, and write it behind ``y``.

    Args:
        name: the kernel's.
        parameter: one more parameter of it with its comma, a list of columns; or nothing.
        column: the input of column ``k``.
        ahead: the input of the column ``{n}`` places behind it.
    """
    large = _sum("TILE", column, ahead, pairs=True)
    small = _sum("SMALL", column, ahead, pairs=False)
    return f"""
/* y[l] = bias[l] + sum over k of w[k][l] {column}, for a group of rows, at most 16. */
static void {name}(const float *w, int height, const float *bias, int count,
                   {parameter}const float *x, float *y) {{
  int l = 0;
  if (height > SMALLER) {{
    const float *p = w;
    int k = 0;
{large}    return;
  }}
#if LANES == 1
  for (; height < SMALL_ROWS && l < height; l++) {{
    const float *p = w + l;
    float sum = bias[l];
    int k;
    for (k = 0; k < count; k++, p += height) sum += *p * {column};
    y[l] = sum;
  }}
#endif
  for (; l < height; l += SMALL_ROWS) {{
    const float *p;
    int k = 0;
#if LANES == 1
    /* The last tile begins earlier: some rows are computed twice. */
    if (l > height - SMALL_ROWS) l = height - SMALL_ROWS;
#endif
    p = w + l;
{small}  }}
}}
"""
