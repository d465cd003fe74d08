"""How a matrix of whole numbers lies in C, and the sum of one of its rows: all or only what lives.

Weights of 4 and 2 bits lie two and four to a byte. Whichever layout is smaller is taken.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rayprune.deploy.formats.c.program import Program
from rayprune.deploy.policy.interface import Array

_WEIGHT = {
    8: "{w}[{n}]",
    4: "((int8_t)({w}[({n}) >> 1] << (({n}) & 1 ? 0 : 4)) >> 4)",
    2: "((int8_t)({w}[({n}) >> 2] << (6 - 2 * (({n}) & 3))) >> 6)",
}
"""Bits -> weight number n, in C."""
_UNROLLED = 4


@dataclass(frozen=True, slots=True)
class Rows:
    """C text that adds row ``i`` to ``total``, and what it says of itself."""

    text: str
    layout: dict[str, object]


def rows_of(program: Program, weight: Array, bits: int, given: str) -> Rows:
    """Lay a matrix down.

    Args:
        program: gets the constants.
        weight: ``(out, in)``, int8.
        bits: of a weight: 8, 4 or 2.
        given: the pointer of the numbers that are read.
    """
    rows, columns = weight.shape
    living = np.argwhere(weight != 0)
    width = 1 if columns <= 2**8 else 2
    sparse = -(-len(living) * bits // 8) + width * len(living) + 2 * (rows + 1)
    dense = -(-rows * columns * bits // 8)
    facts = {"rows": rows, "columns": columns, "density": round(len(living) / weight.size, 4)}
    if sparse < dense and columns <= 2**16 and len(living) < 2**16:
        kind = np.uint8 if width == 1 else np.uint16
        values = weight[living[:, 0], living[:, 1]]
        begins = np.concatenate([[0], np.bincount(living[:, 0], minlength=rows).cumsum()])
        at = program.constant(begins.astype(np.uint16))
        column = program.constant(living[:, 1].astype(kind))
        w = _packed(program, values, bits)
        text = _sum(f"{at}[i]", f"{at}[i + 1]", bits, w, f"{given}[{column}[{{n}}]]")
        return Rows(text, {**facts, "bits": bits, "layout": "sparse rows", "bytes": sparse})
    w, at = _packed(program, weight.reshape(-1), bits), f"i * {columns}"
    text = _sum("0", str(columns), bits, w, f"{given}[{{n}}]", at)
    return Rows(text, {**facts, "bits": bits, "layout": "dense", "bytes": dense})


def _sum(begin: str, end: str, bits: int, w: str, given: str, at: str = "") -> str:
    """Return a loop over ``n``.

    Args:
        begin: of it.
        end: likewise.
        bits: of a weight.
        w: the weights' name.
        given: what is read beside weight ``{n}``.
        at: where the row's weights begin, if ``n`` counts from there.
    """
    row = f"const int8_t *const w = {w} + {at};\n    " if at and bits == 8 else ""

    def product(n: str) -> str:
        whole = n if row or not at else f"{at} + {n}"
        weight = _WEIGHT[bits].format(w="w" if row else w, n=whole)
        return f"{weight} * {given.format(n=n)}"

    more = "\n        + ".join(product(f"n + {k}" if k else "n") for k in range(_UNROLLED))
    return (
        f"{row}int n = {begin};\n    const int end = {end};\n"
        f"    for (; n + {_UNROLLED} <= end; n += {_UNROLLED})\n      total += {more};\n"
        f"    for (; n < end; n++) total += {product('n')};"
    )


def _packed(program: Program, values: Array, bits: int) -> str:
    """Lay weights down; return their constant's name."""
    if bits == 8:
        return program.constant(values.astype(np.int8))
    each = 8 // bits
    padded = np.pad(values.astype(np.int64), (0, -len(values) % each)) & (2**bits - 1)
    places = bits * np.arange(each)
    return program.constant((padded.reshape(-1, each) << places).sum(axis=1).astype(np.uint8))
