"""What a Learner logs of an update: figures of its last minibatch, and counts of all of them.

RLlib logs a minibatch's losses with a window of one, so that each forgets the one before, and adds
to a dozen sums after each.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from ray.rllib.core import ALL_MODULES
from ray.rllib.policy.sample_batch import MultiAgentBatch
from ray.rllib.utils.metrics import (
    MODULE_TRAIN_BATCH_SIZE_MEAN,
    NUM_ENV_STEPS_TRAINED,
    NUM_MODULE_STEPS_TRAINED,
)
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger


class LastingLogs:
    """A view of a MetricsLogger that passes over what the next minibatch would replace."""

    def __init__(self, metrics: MetricsLogger) -> None:
        self._metrics = metrics

    def log_value(self, key: Any, value: Any, *, window: float | None = None, **how: Any) -> None:
        """Log a value, unless its window holds no more than one."""
        if window != 1:
            self._metrics.log_value(key, value, window=window, **how)

    def log_dict(
        self, value_dict: Mapping[str, Any], *, window: float | None = None, **how: Any
    ) -> None:
        """Log values, unless their windows hold no more than one."""
        if window != 1:
            self._metrics.log_dict(value_dict, window=window, **how)

    def __getattr__(self, name: str) -> Any:
        """Do all else as the MetricsLogger does."""
        return getattr(self._metrics, name)


class RepeatedLogs(LastingLogs):
    """Passes over sums, too: who computes a loss twice must not count twice."""

    def log_value(self, key: Any, value: Any, *, window: float | None = None, **how: Any) -> None:
        """Log a value, unless its window holds no more than one, or it is added to others."""
        if "sum" not in str(how.get("reduce")):
            super().log_value(key, value, window=window, **how)


class StepCounts:
    """The steps of an update's minibatches, logged together."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._sizes: defaultdict[str, list[int]] = defaultdict(list)
        self._env_steps: list[int] = []

    def add(self, batch: MultiAgentBatch) -> None:
        """Count a minibatch."""
        self._env_steps.append(batch.env_steps())
        for module_id, columns in batch.policy_batches.items():
            self._sizes[module_id].append(len(columns))

    def log(self, metrics: MetricsLogger, log_steps: Callable[[Any], None]) -> None:
        """Log all that was counted since the last time.

        Args:
            metrics: the Learner's.
            log_steps: RLlib's way to log one minibatch's steps. What is summed up is the same
                however it is split; means hold each minibatch's.
        """
        sizes, env_steps = self._sizes, self._env_steps
        if not sizes:
            return
        self._begin()
        log_steps(_Counted({mid: sum(each) for mid, each in sizes.items()}, sum(env_steps)))
        stats = metrics.stats
        for module_id, each in sizes.items():
            stats[module_id][MODULE_TRAIN_BATCH_SIZE_MEAN].values[-1:] = each
            _as_added(stats[module_id][NUM_MODULE_STEPS_TRAINED], len(each))
        of_all = stats[ALL_MODULES]
        _as_added(of_all[NUM_MODULE_STEPS_TRAINED], sum(map(len, sizes.values())))
        _as_added(of_all[NUM_ENV_STEPS_TRAINED], len(env_steps))


def _as_added(stats: Any, count: int) -> None:
    """Give a sum the type that it has where numbers were added one by one."""
    if count > 1:
        stats.values = [np.nansum(stats.values)]


class _Counted:
    """As much of a batch as RLlib reads when it logs steps.

    Args:
        steps: by module id.
        env_steps: of all modules together.
    """

    def __init__(self, steps: Mapping[str, int], env_steps: int) -> None:
        self.policy_batches = {module_id: range(count) for module_id, count in steps.items()}
        self._env_steps = env_steps

    def env_steps(self) -> int:
        return self._env_steps
