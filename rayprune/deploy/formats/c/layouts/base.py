"""`Layout`: one way to lay a matrix down, what it takes, and the call that multiplies."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np

from rayprune.deploy.formats.c.layouts.costs import Machine
from rayprune.deploy.formats.c.program import Program
from rayprune.deploy.formats.c.registers import ROWS
from rayprune.deploy.policy.interface import Array

MOST_COLUMNS: Final = np.iinfo(np.uint16).max
"""That a layout with column numbers can have."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a matrix takes in one layout, on one kind of machine."""

    bytes: int
    instructions: float


class Layout(ABC):
    """A matrix as it lies in a file.

    Args:
        weight: ``(out, in)``.
    """

    name: ClassVar[str]
    """As certificates say it; its kernels begin with it."""
    code: ClassVar[int]
    """Bytes of its kernel on a Cortex-M4, once a file."""
    complete: ClassVar[bool] = False
    """Whether it holds zeros, too, and with them what they make of NaN and infinity."""

    def __init__(self, weight: Array) -> None:
        self.weight = weight
        self.rows, self.columns = weight.shape

    @property
    @abstractmethod
    def kernel(self) -> str:
        """The function in C that multiplies."""

    @property
    def written_beyond(self) -> int:
        """How many elements behind the last row are written to where there are vectors."""
        return 0

    @abstractmethod
    def cost(self, machine: Machine) -> Cost:
        """Return what it takes, its biases left out."""

    @abstractmethod
    def add(self, program: Program, bias: str, when: str) -> str:
        """Lay it down; return the call that multiplies, of ``{x}`` to ``{y}``.

        Args:
            program: is added to.
            bias: the name of the constant with its biases.
            when: the condition of the preprocessor under which its tables are there; none: always.
        """


def natural(rows: int) -> Array:
    """Return the heights of groups of 16 rows, the last of which has what is left.

    >>> natural(35).tolist()
    [16, 16, 3]
    """
    whole, rest = divmod(rows, ROWS)
    return np.array([ROWS] * whole + [rest] * (rest > 0), int)


def groups_of(heights: Array) -> list[tuple[int, int]]:
    """Return the first row of each group and the one behind its last.

    >>> groups_of(np.array([16, 3]))
    [(0, 16), (16, 19)]
    """
    ends = np.cumsum(heights).tolist()
    return list(zip([0, *ends][:-1], ends, strict=True))


def stacked(weight: Array, heights: Array, columns: Sequence[Array] | None = None) -> Array:
    """Return the weights of groups of rows, column by column: all columns, or those of each."""
    parts = [weight[a:b] for a, b in groups_of(heights)]
    if columns is not None:
        parts = [part[:, some] for part, some in zip(parts, columns, strict=True)]
    return np.concatenate([part.T.reshape(-1) for part in parts]).astype(np.float32)


def narrowest(columns: int, counts: Array) -> np.dtype[Any]:
    """Return the type that column numbers, and counts of them, fit into."""
    return np.dtype(np.uint8 if columns <= 256 and counts.max(initial=0) < 256 else np.uint16)
