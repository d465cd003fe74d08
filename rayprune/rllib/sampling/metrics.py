"""RLlib's metrics, logged without looking for a key by way of trees, and many values at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from ray.rllib.utils.metrics.metrics_logger import MetricsLogger
from ray.rllib.utils.metrics.stats import EmaStats, LifetimeSumStats, SumStats

Key: TypeAlias = str | tuple[str, ...]


class QuickMetrics(MetricsLogger):
    """A MetricsLogger that finds what it has logged before by a few dict lookups.

    RLlib 2.60 flattens each key as a tree three times a value, which costs more than most values.
    """

    def log_value(self, key: Any, value: Any, **kwargs: Any) -> None:
        """Log a value as RLlib does."""
        stats = self.held(key)
        if stats is None:
            super().log_value(key, value, **kwargs)
        else:
            stats.push(value)

    def log_time(self, key: Any, **kwargs: Any) -> Any:
        """Return what measures a time where it is entered, as RLlib does."""
        stats = self.held(key)
        return super().log_time(key, **kwargs) if stats is None else stats

    def held(self, key: Key) -> Any:
        """Return the Stats object of a key, None where nothing was logged yet."""
        found: Any = self.stats
        try:
            for part in (key,) if isinstance(key, str) else key:
                found = found[part]
        except (KeyError, TypeError):
            return None
        return None if isinstance(found, dict) else found

    def add(self, key: Key, number: int, **kwargs: Any) -> None:
        """Log a whole number of which the sum is kept; ``kwargs`` as for ``log_value``."""
        stats = self.held(key)
        if type(stats) is SumStats and stats._window is None and stats.values:
            # RLlib takes `np.nansum` of the two, which is the same, and takes 8 us.
            stats.values = [stats.values[0] + number]
        elif type(stats) is LifetimeSumStats:
            stats._lifetime_sum += number
        else:
            self.log_value(key, number, **kwargs)

    def push_all(self, key: Key, values: Sequence[float]) -> None:
        """Log values of which the exponential average is kept, one after the other."""
        stats = self.held(key)
        if not values or type(stats) is not EmaStats:
            for value in values:
                self.log_value(key, value)
            return
        coefficient, rest = stats._ema_coeff, iter(values)
        # Not a number as long as there was none.
        average = stats._value if stats._value == stats._value else next(rest)
        for value in rest:
            average = coefficient * value + (1.0 - coefficient) * average
        stats._value = average

    def push_mean(self, key: Key, mean: float, count: int) -> None:
        """Log a mean as if it had been each of ``count`` values."""
        stats = self.held(key)
        if not count:
            return
        if type(stats) is not EmaStats or stats._value != stats._value:
            self.log_value(key, mean)
        else:
            stats._value = mean + (stats._value - mean) * (1.0 - stats._ema_coeff) ** count


def quicken(metrics: Any) -> None:
    """Make a logger of RLlib's quick, in place: others may hold it by now."""
    if type(metrics) is MetricsLogger:
        metrics.__class__ = QuickMetrics
