"""What a policy is on its way to C: values, constants, buffers and statements."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from rayprune.deploy.policy.interface import Array

C_TYPES: Final = {
    "float32": "float",
    "int64": "int32_t",
    "int32": "int32_t",
    "int16": "int16_t",
    "int8": "int8_t",
    "uint8": "uint8_t",
    "uint16": "uint16_t",
    "uint32": "uint32_t",
    "bool": "uint8_t",
}
"""NumPy's name -> C's. Whole numbers of 64 bits are choices, and fit into 32."""

SIZES: Final = {
    ctype: np.dtype(kind).itemsize for kind, ctype in C_TYPES.items() if kind != "int64"
}
"""C's name -> bytes."""

PADDED: Final = 16
"""Buffers hold a multiple of so many elements: kernels write whole blocks of rows."""


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor of one item (batch 1), contiguous behind a C pointer."""

    pointer: str
    shape: tuple[int, ...]
    ctype: str = "float"
    constant: Array | None = None
    """What it is, where that is known when the file is written."""

    @property
    def size(self) -> int:
        """How many elements."""
        return math.prod(self.shape)

    def shaped(self, shape: Sequence[int]) -> Value:
        """Return the same elements in another shape."""
        constant = None if self.constant is None else self.constant.reshape(tuple(shape))
        return replace(self, shape=tuple(shape), constant=constant)


@dataclass(frozen=True, slots=True)
class Constant:
    """A table of a file."""

    name: str
    ctype: str
    values: Array
    """One axis."""
    when: str = ""
    """The condition of the preprocessor under which it is there; none: always."""
    read_beyond: bool = False
    """Whether kernels read a register's width beyond its end."""


@dataclass(frozen=True, slots=True)
class Buffer:
    """Memory that statements write to."""

    name: str
    ctype: str
    size: int


@dataclass
class Program:
    """Constants, buffers and statements, in the order in which they are needed."""

    lanes: int | None
    """Floats in a register; None leaves it to the compiler."""
    constants: list[Constant] = field(default_factory=list)
    buffers: list[Buffer] = field(default_factory=list)
    in_place: set[tuple[str, str]] = field(default_factory=set)
    """Pairs of buffers, the first computed of the second element by element."""
    statements: list[str] = field(default_factory=list)
    kernels: set[str] = field(default_factory=set)
    kernels_when: dict[str, set[str]] = field(default_factory=dict)
    """Kernels that are needed under conditions of the preprocessor only -> those."""
    headers: set[str] = field(default_factory=set)
    layouts: list[dict[str, object]] = field(default_factory=list)
    """How each matrix is held, for the certificate."""

    def constant(
        self, array: Array, ctype: str | None = None, *, when: str = "", read_beyond: bool = False
    ) -> str:
        """Return the name of a new constant; the rest as in `Constant`."""
        name = f"c{len(self.constants)}"
        kind, flat = ctype or C_TYPES[str(array.dtype)], np.ascontiguousarray(array).reshape(-1)
        self.constants.append(Constant(name, kind, flat, when, read_beyond))
        return name

    def need(self, *kernels: str, when: str = "") -> None:
        """Add kernels, where a condition of the preprocessor holds."""
        if not when:
            self.kernels.update(kernels)
        for kernel in kernels if when else ():
            self.kernels_when.setdefault(kernel, set()).add(when)

    def buffer(self, shape: Sequence[int], ctype: str = "float", beyond: int = 0) -> Value:
        """Return a new value that statements write to, and up to ``beyond`` elements behind it."""
        name = f"b{len(self.buffers)}"
        size = math.prod(shape) + beyond
        self.buffers.append(Buffer(name, ctype, size + -size % PADDED))
        return Value(name, tuple(shape), ctype)

    def is_buffer(self, pointer: str) -> bool:
        """Whether a C expression is a whole buffer, which has room for whole registers."""
        return any(buffer.name == pointer for buffer in self.buffers)

    def pointer(self, value: Value) -> str:
        """Return the C expression of a value; a constant is laid down at its first use."""
        if value.constant is None:
            return value.pointer
        return self.constant(value.constant, value.ctype)

    def add(self, *lines: str) -> None:
        """Add statements."""
        self.statements.extend(lines)

    def loop(self, size: int, body: str) -> None:
        """Add a loop over ``i``."""
        self.add(f"for (i = 0; i < {size}; i++) {body}")


def c_name(name: str) -> str:
    """Return a name that C takes.

    >>> c_name("next_state.actor.h"), c_name("7up"), c_name("größe")
    ('next_state_actor_h', '_7up', 'gr__e')
    """
    # ASCII: many compilers take no other letters.
    plain = re.sub(r"\W", "_", name, flags=re.ASCII)
    return f"_{plain}" if plain[:1].isdigit() else plain
