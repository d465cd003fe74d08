"""What a sweep would take: reckoned by hand, and laws of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayprune.cli.printing.plan_lines import plan_lines
from rayprune.errors import ConfigError
from rayprune.search.planning.forecast import Calibration, forecast
from rayprune.search.planning.nodes import parse_nodes
from rayprune.search.sweep_spec import Sweep

RAW: dict[str, Any] = {
    "name": "sweep",
    "algorithm": "PPO",
    "env": "CartPole-v1",
    "pruning": {},
    "stop": {"env_steps": 1000},
    "search": {
        "method": "random",
        "population": 5,
        "interval": 300,
        "space": {"pruning.sparsity": {"uniform": [0.5, 0.9]}},
    },
}
MEASURED = Calibration(
    start_s=10.0,
    step_s=0.01,
    env_steps=400,
    evaluation_s=2.0,
    longest_evaluation_s=5.0,
    save_s=0.5,
    restore_s=0.25,
)


def sweep(**search: Any) -> Sweep:
    return Sweep.of({**RAW, "search": {**RAW["search"], **search}}, Path("nowhere"))


def test_a_sweep_by_hand() -> None:
    # Five trials, two at a time: three rounds. 1,000 steps in intervals of 300: four measurements.
    found = forecast(sweep(), 2, MEASURED)
    assert found.rounds == 3
    assert found.trial_s == (10 + 10 + 4 * 2.5, 10 + 10 + 4 * 5.5)
    assert found.sweep_s == (3 * 30.0, 3 * 42.0)
    assert found.dense_s == (0, 0)


def test_members_that_take_turns_pay_for_each_turn() -> None:
    alone, turns = (forecast(sweep(method="mo_pbt"), n, MEASURED).trial_s for n in (5, 4))
    assert alone == (30.0, 42.0)
    assert turns == (30 + 4 * 10.25, 42 + 4 * 10.25)


def test_a_dense_reference_is_trained_first() -> None:
    bound = {"sparsity": "max", "subject_to": {"return_at_least": 0.95}}
    searched = sweep(method="pbt", objectives=bound)
    evaluation = searched.experiment.evaluation.model_copy(update={"every": 250})
    searched = replace(
        searched, experiment=searched.experiment.model_copy(update={"evaluation": evaluation})
    )
    # 1,000 steps, measured four times while training and twice at the end.
    found = forecast(searched, 5, MEASURED)
    assert found.dense_s == (10 + 10 + 6 * 2, 10 + 10 + 6 * 5)
    assert found.sweep_s[0] == found.dense_s[0] + found.trial_s[0]


def test_without_a_limit_to_episodes_there_is_one_estimate() -> None:
    found = forecast(sweep(), 5, replace(MEASURED, longest_evaluation_s=None))
    assert found.trial_s[0] == found.trial_s[1]


times = st.floats(0.001, 100)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), times, times, times)
def test_more_room_never_takes_longer(
    fewer: int, more: int, step_s: float, evaluation_s: float, start_s: float
) -> None:
    fewer, more = sorted((fewer, more))
    measured = replace(MEASURED, step_s=step_s, evaluation_s=evaluation_s, start_s=start_s)
    for method in ("random", "mo_pbt"):
        slow, fast = (forecast(sweep(method=method), n, measured) for n in (fewer, more))
        assert fast.sweep_s[0] <= slow.sweep_s[0]
        assert slow.sweep_s[0] <= slow.sweep_s[1]
        assert slow.sweep_s[0] >= slow.trial_s[0]


def test_nodes_that_are_not_there_are_described_by_kind() -> None:
    assert parse_nodes(["2x16+1", "1x4"]) == [
        {"CPU": 16.0, "GPU": 1.0},
        {"CPU": 16.0, "GPU": 1.0},
        {"CPU": 4.0},
    ]


@pytest.mark.parametrize("text", ["16", "x16", "2x", "0x16", "2x16+", "-1x4", "99999x1", "2*16"])
def test_other_forms_are_refused_all_at_once(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_nodes([text, "also wrong", "1x1"])
    assert len(caught.value.faults) == 2
    assert repr(text) in caught.value.faults[0]
    assert "such as 100x16" in caught.value.faults[0]


def test_a_plan_is_told_in_lines() -> None:
    plan = {
        "trial": {"CPU": 3.0, "GPU": 0.5},
        "bundles": [{"CPU": 1.0, "GPU": 0.5}, {"CPU": 2.0}],
        "cluster": {"CPU": 8.0, "GPU": 1.0},
        "nodes": 2,
        "trials": 5,
        "at_once": 2,
        "rounds": 3,
        "calibration": vars_of(MEASURED),
        "estimate_s": {"dense": (0, 0), "trial": (30.0, 42.0), "sweep": (90.0, 126.0)},
    }
    assert plan_lines(plan) == [
        "A trial     3 CPU, 0.5 GPU, in 2 parts: 1 CPU, 0.5 GPU | 2 CPU",
        "Cluster     8 CPU, 1 GPU on 2 node(s)",
        "At once     2 of 5 trials, in 3 rounds",
        "Calibrated  100 env steps a second in 400 steps; start 10.0 s, measurement 2.0 s (up to "
        "5.0 s when episodes get longer), checkpoint 0.50 s",
        "A trial     30 s to 42 s",
        "The sweep   1:30 min to 2:06 min",
    ]
    policy = {"schedule": "static", "criterion": "l1", "granularity": "weight", "target": 0.9}
    grouped = plan_lines({**plan, "groups": {"policy": policy}})
    assert grouped[3] == "Group       policy: static, l1, weight, to 90.0 %"
    unknown = {**plan, "estimate_s": None, "calibration": None, "uncalibrated": "No GPU here."}
    assert plan_lines(unknown)[-1] == "Time        not known. No GPU here."


def vars_of(measured: Calibration) -> dict[str, Any]:
    return {name: getattr(measured, name) for name in Calibration.__dataclass_fields__}
