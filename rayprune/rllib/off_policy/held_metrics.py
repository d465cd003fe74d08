"""Metrics that are reduced once an iteration, to what RLlib gets by reducing after each update."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import torch
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger
from ray.rllib.utils.metrics.stats import (
    EmaStats,
    ItemSeriesStats,
    LifetimeSumStats,
    MaxStats,
    MeanStats,
    MinStats,
    SumStats,
)
from torch import Tensor

from rayprune.rllib.sampling.metrics import QuickMetrics

_SERIES: Final = (MeanStats, MinStats, MaxStats)
"""What gives the root one entry an update."""


class HeldMetrics(QuickMetrics):
    """A MetricsLogger whose reductions wait while it is `holding`.

    RLlib reduces a component's metrics after each update, which makes a tree of new Stats objects,
    and merges that into the Algorithm's, where an iteration's values lie in lists until its end.
    Here they wait in such lists where they were logged.
    """

    _holding = False
    _known: dict[Any, Any]
    """Stats objects by key, as somebody has logged to it."""
    _leaves: dict[int, _Leaf]
    """All Stats objects by their ids."""
    _is_complete: bool
    """Whether all of them are known."""
    _closing: list[_Leaf]
    """Those that an update's end changes: sums just go on, and averages are noted."""
    _averages: list[tuple[Any, list[Any]]]
    """Exponential ones, each with where its leaf notes them."""
    _updates: int
    """That were closed."""

    def begin(self) -> None:
        """Make a logger work whose class was changed to this one."""
        self._known, self._leaves, self._is_complete = {}, {}, False
        self._closing, self._averages, self._updates = [], [], 0

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Let `reduce` close an update within it, and return nothing."""
        self._holding = True
        try:
            yield
        finally:
            self._holding = False

    def log_value(self, key: Any, value: Any, **how: Any) -> None:
        """Log a value as RLlib does."""
        named = type(key) in (str, tuple)
        stats = self._known.get(key) if named else None
        if stats is None:
            super().log_value(key, value, **how)
            if named and (stats := self.held(key)) is not None:
                self._known[key] = stats
        else:
            _push(stats, value)

    def log_dict(self, value_dict: Mapping[Any, Any], *, key: Any = None, **how: Any) -> None:
        """Log the values of a dict as RLlib does."""
        prefix = (key,) if isinstance(key, str) else key or ()
        if type(prefix) is not tuple or not all(map(_is_plain, value_dict.items())):
            super().log_dict(value_dict, key=key, **how)
            return
        how.setdefault("reduce", "mean")
        for name, value in value_dict.items():
            self.log_value((*prefix, name), value, **how)

    def reduce(self, compile: bool = False) -> Any:  # noqa: A002 - RLlib's name
        """Reduce as RLlib does, or close an update."""
        if not self._holding:
            return super().reduce(compile)
        if not self._is_complete:
            self._find_leaves()
        self._updates += 1
        for stats, closed in self._averages:
            closed.append(stats._value)
        for leaf in self._closing:
            leaf.close()
        return {}

    def take(self) -> list[dict[str, Any]]:
        """Return what was closed, for another logger to aggregate in turn, and begin anew."""
        leaves, taken, updates = self._leaves, list[dict[str, Any]](), self._updates
        if updates and leaves:
            _to_numbers(leaf.closed for leaf in leaves.values() if leaf.is_series)
            taken.append(_tree(self.stats, lambda stats: _reduced(leaves, stats, updates)))
        while any(leaf.others for leaf in leaves.values()):
            taken.append(_tree(self.stats, lambda stats: _other(leaves, stats)))
        return taken

    def lifetime_sum(self, key: Any) -> float:
        """Return a lifetime's sum; of a logger whose reductions are taken, what came since."""
        stats = self.held(key)
        return 0.0 if stats is None else float(stats._lifetime_sum)

    def reset(self) -> None:
        """Forget all."""
        super().reset()
        self.begin()

    def set_state(self, state: dict[str, Any]) -> None:
        """Take over a state, and forget what was closed."""
        super().set_state(state)
        self.begin()

    def _set_key(self, flat_key: Any, stats: Any) -> None:
        super()._set_key(flat_key, stats)  # type: ignore[no-untyped-call]
        self._is_complete = False

    def _del_key(self, flat_key: Any, key_error: bool = False) -> None:
        super()._del_key(flat_key, key_error)  # type: ignore[no-untyped-call]
        self._known, self._is_complete = {}, False

    def _find_leaves(self) -> None:
        found = list(_leaves_of(self.stats))
        known, since = self._leaves, self._updates
        self._leaves = {id(stats): known.get(id(stats)) or _Leaf(stats, since) for stats in found}
        leaves = self._leaves.values()
        self._averages = [(leaf.stats, leaf.closed) for leaf in leaves if leaf.kind is EmaStats]
        self._closing = [one for one in leaves if not one.is_sum and one.kind is not EmaStats]
        self._is_complete = True


class _Leaf:
    """A Stats object, and what its updates have come to.

    Args:
        stats: the object.
        since: after how many updates of its logger it came.
    """

    __slots__ = ("closed", "is_series", "is_sum", "kind", "others", "since", "stats")

    def __init__(self, stats: Any, since: int) -> None:
        self.stats = stats
        self.since = since
        """How many updates were reduced, or came before it."""
        self.kind = type(stats)
        self.is_series = self.kind in _SERIES
        unlimited = getattr(stats, "_window", None) is None
        self.is_sum = self.kind is LifetimeSumStats or (self.kind is SumStats and unlimited)
        self.closed: list[Any] = []
        self.others: list[Any] = []
        """What is none of RLlib's usual kinds, reduced by itself."""

    def close(self) -> None:
        """End an update of what is no sum and no exponential average."""
        stats = self.stats
        if self.is_series:
            values = stats.values
            if len(values) == 1:
                self.closed.append(values[0])
                values.clear()
            elif values:
                self.closed.append(stats.window_reduce()[0])
                values.clear()
        # Items that were taken out, as TD errors are, leave nothing.
        elif self.kind is not ItemSeriesStats or stats.items:
            self.others.append(stats.reduce(compile=False))

    def reduced(self, updates: int) -> Any:
        """Return a Stats object of all updates, and begin anew; None where `other` gives them.

        Args:
            updates: of its logger, so far.
        """
        closed, is_new, stats = [*self.closed], updates > self.since, self.stats
        self.closed.clear()  # the list is held
        self.since = updates
        if not is_new or not (self.is_series or self.is_sum or self.kind is EmaStats):
            return None
        if self.is_sum:
            return stats.reduce(compile=False)
        result = stats.clone()
        if self.is_series:
            # Of an update without a value RLlib's have NaN, which counts where nothing else is.
            has_nan = self.kind is MeanStats or stats._window is not None
            result.values = closed or ([np.nan] if has_nan else [])
        else:
            result._value = _mean(closed)
        return result

    def other(self) -> Any:
        """Return the Stats object of the first update that is left; None where none is."""
        return self.others.pop(0) if self.others else None


def _reduced(leaves: Mapping[int, _Leaf], stats: Any, updates: int) -> Any:
    # One that was logged to after the last update is closed with the next.
    leaf = leaves.get(id(stats))
    return None if leaf is None else leaf.reduced(updates)


def _other(leaves: Mapping[int, _Leaf], stats: Any) -> Any:
    leaf = leaves.get(id(stats))
    return None if leaf is None else leaf.other()


def hold(metrics: Any) -> bool:
    """Make a logger of RLlib's, or ours, one that holds, in place; return whether it is one."""
    if type(metrics) in (MetricsLogger, QuickMetrics):
        metrics.__class__ = HeldMetrics
        metrics.begin()
    return isinstance(metrics, HeldMetrics)


def _push(stats: Any, value: Any) -> None:
    """Do what ``push`` does, sooner."""
    kind = type(stats)
    if kind is MeanStats:
        # Not the graph that it came from, which would be kept until the iteration's end.
        stats.values.append(value.detach() if isinstance(value, Tensor) else value)
    elif kind is LifetimeSumStats and type(value) is int:
        stats._lifetime_sum += value
    elif kind is EmaStats and type(value) in (int, float) and value == value:
        _push_average(stats, value)
    elif kind is SumStats and type(value) is int and stats._window is None and stats.values:
        # RLlib takes `np.nansum` of the two, which is the same.
        stats.values = [stats.values[0] + value]
    else:
        stats.push(value)


def _push_average(stats: EmaStats, value: float) -> None:
    average: Any = stats._value
    if isinstance(average, float) and average == average:  # no NaN
        stats._value = stats._ema_coeff * value + (1.0 - stats._ema_coeff) * average
    else:
        stats.push(value)


def _is_plain(item: tuple[Any, Any]) -> bool:
    return type(item[0]) is str and not isinstance(item[1], (dict, list, tuple))


def _leaves_of(stats: Any) -> Iterator[Any]:
    if isinstance(stats, dict):
        for held in stats.values():
            yield from _leaves_of(held)
    else:
        yield stats


def _tree(stats: Mapping[str, Any], reduced: Any) -> dict[str, Any]:
    """Return a tree of the same shape, without what is reduced to None."""
    made = {
        key: _tree(held, reduced) if isinstance(held, dict) else reduced(held)
        for key, held in stats.items()
    }
    return {key: held for key, held in made.items() if held is not None and not _is_empty(held)}


def _is_empty(held: Any) -> bool:
    return isinstance(held, dict) and not held


def _to_numbers(series: Iterator[list[Any]]) -> None:
    """Make numbers of all tensors in lists, in one go: each by itself would wait for a GPU."""
    places = [
        (values, n) for values in series for n, one in enumerate(values) if isinstance(one, Tensor)
    ]
    if not places:
        return
    stacked = torch.stack([values[n].float() for values, n in places])
    for (values, n), number in zip(places, stacked.tolist(), strict=True):
        values[n] = number


def _mean(values: list[Any]) -> Any:
    """Return the mean of what is no NaN, as RLlib merges averages."""
    numbers = [float(value) for value in values]
    found = [number for number in numbers if number == number]
    return np.float64(np.mean(found)) if found else np.nan
