"""Priorities of transitions, summed and minimised in trees: RLlib's segment trees as arrays.

RLlib's trees hold Python objects, and a sum's precision is theirs: Python floats (new transitions'
priority 1.0, and the lower bound 1e-12) add up in double precision until a ``np.float32`` (a TD
error) comes in, with which a Python float counts as one of single precision (NEP 50). What is drawn
depends on it to the last bit, so each node here knows which of the two it is.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Priority = float | np.float32

PRIORITY_TYPES: Final = frozenset({float, int, np.float32})
"""Types of what the trees can hold."""
_NAN: Final = float("nan")
_FEW: Final = 6
"""Up to as many leaves are set one by one: NumPy's calls would take longer."""
_WHOLE_LEVEL: Final = 4096
"""Levels of at most as many nodes are computed as a whole, which takes no indices."""
_BLOCK: Final = 64
"""Leaves over which a minimum is kept."""


class PriorityTrees:
    """Priorities, with their sums over all subtrees of a binary tree, and their minimum.

    Node 1 is the root, node ``i`` has the children ``2 * i`` and ``2 * i + 1``, and leaf ``n`` is
    node ``leaves + n``. A leaf without a transition counts 0 in sums.

    Args:
        leaves: a power of two.
    """

    def __init__(self, leaves: int) -> None:
        self.leaves = leaves
        self._used = 1
        """Leaves from here on were never set."""
        self._singles: Array = np.zeros(2 * leaves, np.float32)
        """Sums as a sum of single precision takes them."""
        self._doubles: Array = np.zeros(2 * leaves)
        """Sums of Python floats; NaN, and so all above, where a ``np.float32`` lies below."""
        self._has_singles = False
        """Whether there was ever a ``np.float32``; until then only `_doubles` is kept up."""
        self._lows: Array = np.full((-(-leaves // _BLOCK), _BLOCK), np.inf)
        """Priorities, infinite where there is none."""
        self._block_lows: Array = np.full(len(self._lows), np.inf)
        self._make_views()

    @property
    def total(self) -> Priority:
        """The sum of all priorities, of RLlib's type."""
        total: Priority = self._singles[1] if self._is_single else self._doubles[1].item()
        return total

    @property
    def lowest(self) -> Priority:
        """The least of all priorities, of the precision of `total`."""
        lowest = float(self._block_lows.min())
        return np.float32(lowest) if self._is_single else lowest

    def at(self, leaves: Array) -> Array:
        """Return priorities, of the precision of `total`, shape ``(leaves,)``."""
        values = self._singles if self._is_single else self._doubles
        found: Array = values[leaves + self.leaves]
        return found

    def set(self, leaves: Sequence[int], values: Sequence[Any]) -> None:
        """Set priorities; of a leaf that is named twice, the last counts."""
        self._used = max(self._used, 1 + max(leaves))
        if np.float32 in map(type, values):
            self._take_singles()
        if len(leaves) <= _FEW:
            for leaf, value in zip(leaves, values, strict=True):
                self._set_one(leaf, float(value), type(value) is np.float32)
        else:
            numbers, where = np.array(values, np.float64), np.array(leaves, np.int64)
            doubles = numbers.copy()
            if self._has_singles:
                doubles[[type(value) is np.float32 for value in values]] = np.nan
            self._set_many(where, numbers, doubles, numbers)
        if self._is_single:  # also of a float that is no number
            self._take_singles()

    def clear(self, leaves: Sequence[int]) -> None:
        """Take transitions' priorities out."""
        self._set_many(np.array(leaves, np.int64), 0.0, 0.0, np.inf)

    def find(self, draws: Array) -> Array:
        """Return the leaves in which shares of the total fall.

        Args:
            draws: in [0, 1), float64.

        Returns:
            Leaf numbers, int64, shape of ``draws``.
        """
        total = self.total
        assert total >= 0.0, "priorities are numbers"
        sums = self._singles if self._is_single else self._doubles
        left_over = draws.astype(sums.dtype) * total
        beyond = left_over >= total
        if beyond.any():
            # RLlib takes 1e-5 off, which single precision doesn't see in a total above 128: the
            # walk then ends on a leaf without a transition, and it raises KeyError.
            left_over[beyond] = min(total - 1e-5, np.nextafter(total, type(total)(0)))
        # Where all leaves in use lie to the left, so does what is looked for.
        depth = (self._used - 1).bit_length()
        nodes = np.full(draws.shape, self.leaves >> depth, np.int64)
        for _ in range(depth):
            nodes = nodes + nodes
            beyond_left = left_over - sums.take(nodes)
            right = beyond_left >= 0
            np.copyto(left_over, beyond_left, where=right)
            nodes += right
        return nodes - self.leaves

    def sums_as_list(self) -> list[Any]:
        """Return the sums as RLlib's SumSegmentTree holds them."""
        return self._as_list(operator.add, 0.0, self._doubles[self.leaves :])

    def minima_as_list(self) -> list[Any]:
        """Return the minima as RLlib's MinSegmentTree holds them."""
        return self._as_list(min, float("inf"), self._lows.ravel()[: self.leaves])

    def take_over(self, sums: list[Any], minima: list[Any]) -> None:
        """Take the priorities from the values of RLlib's two trees.

        Raises:
            TypeError: a priority is of a type that arrays can't hold, see `PRIORITY_TYPES`.
        """
        lows = minima[self.leaves :]
        if lows.count(float("inf")) == len(lows):  # a million leaves of a new buffer
            return
        used = [n for n, low in enumerate(lows) if low != float("inf")]
        values = [sums[self.leaves + n] for n in used]
        if not {*map(type, values)} <= PRIORITY_TYPES:
            raise TypeError("a priority is no Python number and no np.float32")
        self.set(used, values)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a pickle holds: no views."""
        return {name: held for name, held in vars(self).items() if not name.startswith("_view")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Make the views anew."""
        vars(self).update(state)
        self._make_views()

    @property
    def _is_single(self) -> bool:
        return self._view_doubles[1] != self._view_doubles[1]  # type: ignore[no-any-return]

    def _make_views(self) -> None:
        """Look at the same memory number by number, which NumPy is slow at."""
        singles: Any = self._singles
        doubles: Any = self._doubles
        self._view_singles: Any = memoryview(singles)
        self._view_doubles: Any = memoryview(doubles)

    def _take_singles(self) -> None:
        """Keep up sums of single precision from now on."""
        if not self._has_singles:
            self._has_singles = True
            self._singles[:] = self._doubles

    def _set_one(self, leaf: int, value: float, is_single: bool) -> None:
        singles, doubles, node = self._view_singles, self._view_doubles, leaf + self.leaves
        singles[node] = value
        doubles[node] = _NAN if is_single else value
        while node := node >> 1:
            left = 2 * node
            total = doubles[node] = doubles[left] + doubles[left + 1]
            if self._has_singles:
                # Added in double precision and then rounded, which is the sum of both.
                singles[node] = singles[left] + singles[left + 1] if total != total else total
        block = leaf // _BLOCK
        self._lows[block, leaf % _BLOCK] = value
        self._block_lows[block] = self._lows[block].min()

    def _set_many(self, leaves: Array, singles: Any, doubles: Any, lows: Any) -> None:
        nodes, blocks = leaves + self.leaves, leaves // _BLOCK
        self._singles[nodes] = singles
        self._doubles[nodes] = doubles
        self._lows[blocks, leaves % _BLOCK] = lows
        self._block_lows[blocks] = self._lows.take(blocks, axis=0).min(axis=1)
        size, all_single = self.leaves >> 1, False
        while size > _WHOLE_LEVEL:
            nodes, size = nodes >> 1, size >> 1
            all_single = self._update(nodes, 2 * nodes, 2 * nodes + 1, all_single)
        all_single = False
        while size > 1 and self._used * size > self.leaves:
            used = -(-self._used * size // self.leaves)
            first, end = 2 * size, 2 * (size + used)
            left, right = slice(first, end, 2), slice(first + 1, end, 2)
            all_single = self._update(slice(size, size + used), left, right, all_single)
            size >>= 1
        # From here on all lies below the first node of each level.
        if size:
            child = 2 * size
            parts = slice(child, child + 1), slice(child + 1, child + 2)
            self._update(slice(size, size + 1), *parts, all_single=False)
            self._hand_up(size)

    def _hand_up(self, node: int) -> None:
        """Take over the sum of a level's first node, beside which there is none, to the root."""
        singles, doubles = self._view_singles, self._view_doubles
        while parent := node >> 1:
            singles[parent], doubles[parent] = singles[node], doubles[node]
            node = parent

    def _update(self, nodes: Any, left: Any, right: Any, all_single: bool) -> bool:
        """Compute sums from their two parts; return whether all of them are single."""
        singles, doubles = self._singles, self._doubles
        exact = doubles[left] + doubles[right]
        if not self._has_singles:
            doubles[nodes] = exact
            return False
        sums = singles[left] + singles[right]
        if not all_single:
            python = exact == exact
            all_single = not python.any()
            if not all_single:
                np.copyto(sums, exact, where=python, casting="same_kind")
        singles[nodes] = sums
        doubles[nodes] = exact
        return all_single

    def _as_list(self, operation: Any, neutral: float, values: Array) -> list[Any]:
        """Return a tree of Python objects, as its leaves make it."""
        tree: list[Any] = [neutral] * self.leaves + values.tolist()
        for leaf in np.flatnonzero(np.isnan(self._doubles[self.leaves :])).tolist():
            tree[self.leaves + leaf] = self._singles[self.leaves + leaf]
        for node in reversed(range(1, self.leaves)):
            tree[node] = operation(tree[2 * node], tree[2 * node + 1])
        return tree
