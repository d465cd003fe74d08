"""What a policy in whole numbers computes, in NumPy: the model that a C file equals bit by bit.

A whole number ``k`` stands for ``k * step``. Nothing here rounds in floating point but where an
observation comes in and a result goes out; each of those is one product, which no compiler can
contract. Written to be read, and not to be fast.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from rayprune.deploy.policy.interface import Array

LARGEST: Final = 2**31 - 1
"""Of a sum, and of a multiplier."""
TANH_INPUT: Final = 2**12
"""Steps to one of what `tanh` reads: it ends at 8, where tanh is 1 to 16 bits."""
TANH_OUTPUT: Final = 2**15
"""Steps to one of what `tanh` gives."""
_TANH_MOST: Final = 2**15 - 1


def quantised(values: Array, inverse: float, low: int, high: int) -> Array:
    """Return the whole number nearest to each value over the step; halves away from zero, NaN 0.

    Args:
        values: float32.
        inverse: one over the step, float32.
        low: the least number.
        high: the largest.

    >>> quantised(np.array([0.26, -9.0, np.nan], np.float32), 2.0, -4, 4).tolist()
    [1, -4, 0]
    """
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = np.asarray(values, np.float32) * np.float32(inverse)
        scaled = np.minimum(np.maximum(scaled, np.float32(low)), np.float32(high))
        scaled = np.where(np.isnan(scaled), np.float32(0), scaled)
        half = np.where(scaled < 0, np.float32(-0.5), np.float32(0.5))
        found: Array = np.trunc(scaled + half).astype(np.int32)
    return found


def sums(numbers: Array, weight: Array, bias: Array) -> Array:
    """Return ``numbers @ weight.T + bias`` in whole numbers of 32 bits.

    Args:
        numbers: ``(batch, in)``.
        weight: ``(out, in)``.
        bias: ``(out,)``.

    >>> sums(np.array([[1, 2]]), np.array([[3, -4]]), np.array([10])).tolist()
    [[5]]
    """
    given, turned, added = (x.astype(np.int64) for x in (numbers, weight.T, bias))
    found: Array = (given @ turned + added).astype(np.int32)
    return found


def rescaled(numbers: Array, multipliers: Array, shift: int, low: int, high: int) -> Array:
    """Return ``numbers * multipliers / 2**shift``, halves up, within bounds: no floats.

    A fixed-point multiplication (Jacob et al. 2018, arXiv:1712.05877, 2.2), with one shift for all.

    Args:
        numbers: ``(batch, out)``.
        multipliers: ``(out,)`` or ``(1,)``, from 0 to 2**31 - 1.
        shift: 1 to 62.
        low: the least number that comes out.
        high: the largest.

    >>> rescaled(np.array([[5, -5, 900]]), np.array([2]), 2, -10, 10).tolist()
    [[3, -2, 10]]
    """
    products = numbers.astype(np.int64) * multipliers.astype(np.int64)
    scaled = (products + (1 << (shift - 1))) >> shift
    found: Array = np.clip(scaled, low, high).astype(np.int32)
    return found


def tanh_table(bits: int) -> Array:
    """Return tanh at the ends of ``2**bits`` intervals from 0 to 8, int16."""
    at = np.arange(2**bits + 1) * (8.0 / 2**bits)
    found: Array = np.rint(np.tanh(at) * _TANH_MOST).astype(np.int16)
    return found


def tanh(numbers: Array, table: Array) -> Array:
    """Return the hyperbolic tangent, by a table and straight lines between its entries.

    Args:
        numbers: whole multiples of ``1 / TANH_INPUT``, from -32,767 to 32,767.
        table: from `tanh_table`.

    Returns:
        Whole multiples of ``1 / TANH_OUTPUT``.

    >>> tanh(np.array([0, 4096, -4096, 32767]), tanh_table(7)).tolist()
    [0, 24955, -24955, 32767]
    """
    width = 15 - (len(table) - 1).bit_length() + 1
    sizes = np.abs(numbers.astype(np.int64))
    place, rest = sizes >> width, sizes & ((1 << width) - 1)
    before, after = (table.astype(np.int64)[place + more] for more in (0, 1))
    found = before + (((after - before) * rest + (1 << (width - 1))) >> width)
    signed: Array = np.where(numbers < 0, -found, found).astype(np.int32)
    return signed


def values(numbers: Array, steps: Array, watched: Array) -> Array:
    """Return what whole numbers stand for; NaN in every place of a row whose input had one.

    Args:
        numbers: ``(batch, out)``.
        steps: ``(out,)``, float32.
        watched: what the numbers were made of, ``(batch, in)``.

    >>> values(np.array([[2], [2]]), np.float32([0.5]), np.float32([[1], [np.nan]])).tolist()
    [[1.0], [nan]]
    """
    found: Array = numbers.astype(np.float32) * np.asarray(steps, np.float32)
    spoilt = np.isnan(watched.reshape(len(watched), -1)).any(axis=1)
    found[spoilt] = np.float32(np.nan)
    return found


def fixed_point(scales: Array) -> tuple[Array, int]:
    """Return multipliers and one shift that stand for some scales, the largest to 31 bits.

    Args:
        scales: float64, at least 0.

    >>> multipliers, shift = fixed_point(np.array([0.25, 0.001]))
    >>> [round(float(x) / 2**shift, 9) for x in multipliers]
    [0.25, 0.001]
    """
    largest = float(scales.max(initial=0.0))
    # As long as it goes beyond 32 bits, a product's upper half is all that is wanted of it.
    shift = 62 if largest == 0 else int(np.clip(30 - np.floor(np.log2(largest)), 1, 62))
    while shift > 1 and np.rint(largest * 2.0**shift) > LARGEST:
        shift -= 1
    # With a scale beyond 2**30 whatever isn't zero lies outside any bounds, by the largest too.
    multipliers = np.minimum(np.rint(scales * 2.0**shift), LARGEST)
    return multipliers.astype(np.int64).astype(np.int32), shift
