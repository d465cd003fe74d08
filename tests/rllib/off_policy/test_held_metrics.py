"""Metrics reduced once, against RLlib's reduced after each update."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

from rayprune.rllib.off_policy.held_metrics import HeldMetrics, hold

UPDATES = 5


def _log(metrics: Any, update: int, draws: np.random.Generator) -> None:
    """Log all kinds of values, some of them only now and then."""
    metrics.log_value(("net", "loss"), torch.tensor(draws.random()), window=1)
    metrics.log_dict({"low": draws.random(), "high": torch.rand(())}, key="net", window=1)
    metrics.log_value(("net", "rate"), draws.random(), reduce="mean")
    metrics.log_value("steps", 3, reduce="sum", with_throughput=True)
    metrics.log_value(("net", "lifetime"), 4, reduce="lifetime_sum", with_throughput=True)
    metrics.log_value(("net", "time"), draws.random())
    metrics.log_value(("net", "last"), update, reduce="max")
    metrics.log_value(("net", "least"), draws.random(), reduce="min", window=3)
    metrics.log_value(("net", "item"), f"update {update}", reduce="item")
    if update % 2:
        metrics.log_value(("net", "seldom"), draws.random(), window=2)
        metrics.log_value(("net", "seldom"), draws.random(), window=2)
        metrics.log_value(("net", "never a number"), math.nan, window=1)


@pytest.fixture
def held() -> HeldMetrics:
    metrics: Any = MetricsLogger(root=False)
    assert hold(metrics)
    return metrics  # type: ignore[no-any-return]


def test_one_reduction_gives_what_one_after_each_update_gives(held: HeldMetrics) -> None:
    plain, roots = MetricsLogger(root=False), [MetricsLogger(root=True) for _ in range(2)]
    compiled: list[Any] = [[], []]
    generators = [np.random.default_rng(1) for _ in range(2)]
    for _ in range(2):  # iterations
        torch.manual_seed(1)
        for update in range(UPDATES):
            _log(plain, update, generators[0])
            roots[0].aggregate([plain.reduce()], key="learners")
        torch.manual_seed(1)
        for update in range(UPDATES):
            _log(held, update, generators[1])
            with held.holding():
                assert held.reduce() == {}
        for results in held.take():
            roots[1].aggregate([results], key="learners")
        for root, found in zip(roots, compiled, strict=True):
            found.append(_without_throughputs(root.compile()))
    assert repr(compiled[0]) == repr(compiled[1])


def test_outside_of_holding_it_reduces_as_rllib_does(held: HeldMetrics) -> None:
    held.log_value("loss", 2.0, window=1)
    assert held.reduce()["loss"].peek() == 2.0
    assert held.take() == []


def test_what_is_held_keeps_no_graph(held: HeldMetrics) -> None:
    weight = torch.ones((), requires_grad=True)
    for _ in range(2):
        held.log_value("loss", weight * 2, window=1)
    assert not held.stats["loss"].values[-1].requires_grad


def test_a_state_that_is_set_forgets_what_was_closed(held: HeldMetrics) -> None:
    held.log_value("steps", 3, reduce="lifetime_sum")
    state = held.get_state()
    with held.holding():
        held.reduce()
    held.set_state(state)
    assert held.take() == []
    held.log_value("steps", 3, reduce="lifetime_sum")
    assert held.lifetime_sum("steps") == 6


def test_a_users_logger_is_left_as_it_is() -> None:
    class Own(MetricsLogger):
        pass

    own = Own(root=False)
    assert not hold(own)
    assert type(own) is Own


def _without_throughputs(results: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _without_throughputs(held) if isinstance(held, dict) else str(held)
        for key, held in sorted(results.items())
        if "throughput" not in key
    }
