"""Masked weights on disk: a bitmask and the values that are left, or rows of columns and values.

A bitmask costs one bit a weight, a column index two bytes a weight that is left, so the bitmask is
smaller up to about 94 % zeros. Whichever is smallest is taken, array by array, and every bit comes
back: what is left out is +0.0 alone, not -0.0 and not NaN.

::

    data = dumps({"layer.weight": weight})   # bytes that plain `pickle.loads` reads
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Packed = tuple[str, str, tuple[int, ...], tuple[bytes, ...]]
"""The layout, NumPy's name of the type, the shape, and the parts."""

_SMALLEST: Final = 256
"""Bytes of an array under which nothing is gained."""
_NARROW: Final = 65535


def pack(array: Array) -> Packed | None:
    """Return an array without its zeros; None where that wouldn't make it smaller.

    >>> layout, *_ = pack(np.eye(64, dtype=np.float32))
    >>> layout
    'rows'
    """
    if array.dtype.kind not in "fiu" or array.nbytes < _SMALLEST:
        return None
    flat = np.ascontiguousarray(array).reshape(-1)
    # By the bits: -0.0 equals 0.0, but isn't it.
    living = flat.view(f"u{flat.itemsize}") != 0
    values = flat[living]
    best: tuple[bytes, ...] | None = None
    layout = ""
    for name, parts in (("bits", _bits(living)), ("rows", _rows(living, array.shape[0]))):
        whole = (*parts, values.tobytes())
        if sum(map(len, whole)) < sum(map(len, best or ())) or best is None:
            layout, best = name, whole
    assert best is not None
    if sum(map(len, best)) >= array.nbytes:
        return None
    return layout, array.dtype.str, array.shape, best


def unpack(layout: str, dtype: str, shape: tuple[int, ...], parts: tuple[bytes, ...]) -> Array:
    """Return the array that `pack` was given, to the bit.

    >>> weight = np.diag(np.arange(64.0))
    >>> bool((unpack(*pack(weight)) == weight).all())
    True
    """
    array = np.zeros(shape, np.dtype(dtype))
    flat = array.reshape(-1)
    flat[_PLACES[layout](flat.size, shape[0], *parts[:-1])] = np.frombuffer(parts[-1], dtype)
    return array


def dumps(value: Any) -> bytes:
    """Pickle anything, arrays with many zeros in it without them; plain `pickle` reads it."""
    file = io.BytesIO()
    _Pickler(file, protocol=5).dump(value)
    return file.getvalue()


def rewrite_sparsely(directory: Path, name: str) -> None:
    """Write the pickles of one name under a directory anew, where that makes them smaller.

    One that plain `pickle` can't write stays as it is: somebody's state may hold a local class.

    Args:
        directory: searched through all its levels.
        name: of the files.
    """
    for path in sorted(directory.rglob(name)):
        held = path.read_bytes()
        try:
            smaller = dumps(pickle.loads(held))
        except (pickle.PicklingError, AttributeError, TypeError):
            continue
        if len(smaller) < len(held):
            path.write_bytes(smaller)


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        packed = pack(value) if type(value) is np.ndarray else None
        return NotImplemented if packed is None else (unpack, packed)


def _bits(living: Array) -> tuple[bytes, ...]:
    return (np.packbits(living).tobytes(),)


def _rows(living: Array, rows: int) -> tuple[bytes, ...]:
    """Return how many of each row are left, and their columns."""
    wide = living.reshape(rows, -1)
    kind = _index_type(wide.shape[1])
    return wide.sum(axis=1).astype(kind).tobytes(), wide.nonzero()[1].astype(kind).tobytes()


def _places_of_bits(size: int, rows: int, bits: bytes) -> Array:
    return np.unpackbits(np.frombuffer(bits, np.uint8), count=size).astype(bool)


def _places_of_rows(size: int, rows: int, counts: bytes, columns: bytes) -> Array:
    kind = _index_type(size // rows)
    row = np.arange(rows).repeat(np.frombuffer(counts, kind))
    places: Array = row * (size // rows) + np.frombuffer(columns, kind)
    return places


_PLACES: Final[dict[str, Callable[..., Array]]] = {"bits": _places_of_bits, "rows": _places_of_rows}


def _index_type(columns: int) -> str:
    return "<u2" if columns <= _NARROW else "<u4"
