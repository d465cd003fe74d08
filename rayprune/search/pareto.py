"""Dominance, hypervolume and spread, in plain NumPy. Every objective is maximised here.

A set of points is an array of shape ``(n, m)``: n points, m objectives. All values must be finite:
what couldn't be measured has no place on a front, and is left out before (`objectives`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from rayprune.errors import NonFiniteError

Points: TypeAlias = "NDArray[np.float64] | Sequence[Sequence[float]]"
_Array: TypeAlias = NDArray[np.float64]


def non_dominated_sort(points: Points) -> list[list[int]]:
    """Split points into fronts: the first is dominated by none, the next by the first only, ...

    Deb et al. 2002 (doi:10.1109/4235.996017). A point dominates another when it is at least as good
    in every objective and better in one; duplicates dominate neither way and share a front.

    Args:
        points: shape ``(n, m)``.

    Returns:
        Fronts of indices, each in rising order; together they hold every index once.

    >>> non_dominated_sort([[1, 3], [2, 2], [1, 2], [2, 2], [0, 0]])
    [[0, 1, 3], [2], [4]]
    """
    array = _checked(points)
    if not len(array):
        return []
    dominates = _dominance(array)
    dominators = dominates.sum(axis=0)
    left = np.ones(len(array), dtype=bool)
    fronts: list[list[int]] = []
    while left.any():
        members = np.flatnonzero(left & (dominators == 0))
        fronts.append([int(index) for index in members])
        left[members] = False
        # A front of one is common where fronts are many, and summing costs more than it is worth.
        lost = dominates[members[0]] if len(members) == 1 else dominates[members].sum(axis=0)
        dominators -= lost
    return fronts


def front(points: Points) -> list[int]:
    """Return the indices of the points that none dominates, in rising order.

    >>> front([[1, 3], [2, 2], [1, 2]])
    [0, 1]
    """
    array = _checked(points)
    return [int(index) for index in np.flatnonzero(~_dominance(array).any(axis=0))]


def hypervolume(points: Points, reference: Sequence[float]) -> float:
    """Return the volume between the points and ``reference`` that the points dominate, exactly.

    A sweep for two objectives; for more, slices along the last one (Zitzler 1999's HSO): O(n log n)
    for two, a factor of n for each further. Points that don't exceed the reference in every
    objective add nothing.

    Args:
        points: shape ``(n, m)``.
        reference: shape ``(m,)``, the worst value of interest of each objective.

    >>> hypervolume([[1, 3], [2, 2], [3, 1]], [0, 0])
    6.0
    >>> hypervolume([[1, 1, 1], [2, 1, 1]], [0, 0, 0])
    2.0
    """
    array = _checked(points, width=len(reference)) - _checked([reference])
    array = array[(array > 0).all(axis=1)]
    return _volume(np.unique(array, axis=0)) if len(array) else 0.0


def scattered_subset(points: Points, size: int) -> list[int]:
    """Choose ``size`` points that lie far from each other: greedy farthest-first.

    The best point of each objective comes first (on ties the one that is better in the others, then
    the lower index), in the objectives' order; then always the point whose nearest chosen one is
    farthest, in objectives scaled to [0, 1]. After Dushatskiy et al. 2023 (arXiv:2306.01436), who
    begin with the first objective's best alone and don't scale.

    Args:
        points: shape ``(n, m)``.
        size: how many to choose; at most n are.

    Returns:
        Indices in the order chosen, so that a shorter prefix is the answer to a smaller ``size``.

    >>> scattered_subset([[0.0, 1.0], [0.1, 0.9], [0.5, 0.5], [1.0, 0.0]], 3)
    [3, 0, 2]
    """
    array = _checked(points)
    spread = _Spread(_scaled(array))
    spread.take_extremes(range(len(array)), size)
    spread.take(range(len(array)), size)
    return spread.taken


def rank(points: Points) -> list[int]:
    """Order points from best to worst: by front, and inside a front scattered ones first.

    As in Dushatskiy et al. 2023 (arXiv:2306.01436): inside a later front the points that are far
    from all those ranked before them come first, so the last are the crowded ones.

    Args:
        points: shape ``(n, m)``.

    Returns:
        All n indices, best first. With one objective this is its order, best first.

    >>> rank([[0.0, 1.0], [0.1, 0.9], [0.5, 0.5], [1.0, 0.0], [0.4, 0.4]])
    [3, 0, 2, 1, 4]
    """
    array = _checked(points)
    spread = _Spread(_scaled(array))
    for number, members in enumerate(non_dominated_sort(array)):
        if number == 0:
            spread.take_extremes(members, len(members))
        spread.take(members, len(spread.taken) + len(members))
    return spread.taken


def _checked(points: Points, width: int | None = None) -> _Array:
    """Return the points as an array of shape ``(n, m)``, or refuse what is none."""
    array = np.asarray(points, dtype=np.float64)
    if array.size == 0:
        return np.empty((0, width or 0))
    if array.ndim != 2 or (width is not None and array.shape[1] != width):
        wanted = "(n, m)" if width is None else f"(n, {width})"
        raise ValueError(f"`points` must have shape {wanted}, but have {array.shape}.")
    if not np.isfinite(array).all():
        # A NaN is dominated by nothing, so it would lie on every first front.
        row = int(np.flatnonzero(~np.isfinite(array).all(axis=1))[0])
        raise NonFiniteError(f"Point {row} is {array[row].tolist()}: objectives must be finite.")
    return array


def _dominance(array: _Array) -> NDArray[np.bool_]:
    """Return ``[i, j]``: whether point i dominates point j; shape ``(n, n)``."""
    size = len(array)
    at_least = np.ones((size, size), dtype=bool)
    for column in array.T:
        at_least &= column[:, None] >= column[None, :]
    # Better in one: not also at least as good the other way round.
    return at_least & ~at_least.T


def _scaled(array: _Array) -> _Array:
    """Return the objectives scaled to [0, 1] over these points; a constant one becomes 0."""
    if not len(array):
        return array
    low, high = array.min(axis=0), array.max(axis=0)
    # Halves first: the span of two huge values of opposite signs would overflow.
    span = high / 2 - low / 2
    scaled: _Array = (array / 2 - low / 2) / np.where(span > 0, span, 1.0)
    return scaled


class _Spread:
    """Takes points one by one, always the one that is farthest from all taken so far."""

    def __init__(self, scaled: _Array) -> None:
        self.taken: list[int] = []
        self._points = scaled
        self._columns = np.ascontiguousarray(scaled.T)
        self._distances = np.full(len(scaled), np.inf)  # squared, to the nearest taken; -1: taken

    def take(self, among: Sequence[int], total: int) -> None:
        """Take from ``among`` until ``total`` are taken, or none is left there."""
        members = np.asarray([i for i in among if self._distances[i] >= 0], dtype=np.intp)
        for _ in range(min(len(members), total - len(self.taken))):
            # argmax takes the first of equals, so ties go to the lower index.
            self._add(int(members[self._distances[members].argmax()]))

    def take_extremes(self, among: Sequence[int], total: int) -> None:
        """Take the best of each objective from ``among``, while fewer than ``total`` are taken."""
        members = np.asarray(among, dtype=np.intp)
        for column in self._columns if len(members) else ():
            best = members[column[members] == column[members].max()]
            index = int(best[self._points[best].sum(axis=1).argmax()])
            if self._distances[index] >= 0 and len(self.taken) < total:
                self._add(index)

    def _add(self, index: int) -> None:
        self.taken.append(index)
        offsets = self._columns - self._columns[:, index, None]
        squared = np.einsum("ij,ij->j", offsets, offsets)
        np.minimum(self._distances, squared, out=self._distances)
        self._distances[index] = -1.0


def _volume(points: _Array) -> float:
    """Return the volume that positive points dominate above the origin; shape ``(n, m)``."""
    if points.shape[1] == 1:
        return float(points.max())
    if points.shape[1] == 2:
        return _area(points)
    points = points[points[:, -1].argsort()[::-1]]
    depths = np.append(points[:, -1], 0.0)
    total = 0.0
    for count, thickness in enumerate(depths[:-1] - depths[1:], start=1):
        if thickness > 0:
            total += float(thickness) * _volume(points[:count, :-1])
    return total


def _area(points: _Array) -> float:
    """Return the area that positive points dominate above the origin; shape ``(n, 2)``."""
    points = points[np.lexsort((points[:, 1], points[:, 0]))[::-1]]
    # From the right to the left, only what rises above all before adds a strip.
    heights = np.maximum.accumulate(points[:, 1])
    gains = np.diff(heights, prepend=0.0)
    return float((gains * points[:, 0]).sum())
