"""Who says which checkpoint is the best: a gate's verdicts, or else the schedule's end."""

from __future__ import annotations

from typing import Any

import pytest

from rayprune.pruning.schedules.gate_decisions import Gate, GateState, Verdict
from rayprune.rllib.training.counters import RunCounters
from rayprune.rllib.training.validation_driver import Candidate, NoGate, ReturnGate

GOOD: dict[str, Any] = {"iqm": 9.0, "mean": 9.0, "ci95": [8.0, 10.0]}


def gate() -> ReturnGate:
    """A gate whose reference is 10, of which it wants half."""
    settings = {"begin": 0.0, "patience": 0.1, "step": 0.5, "least_step": 0.1, "floor": 0.5}
    found = Gate.of(
        {"reference": 10.0, "criteria": [], **settings}, horizon=100, most=0.9, criterion="l1"
    )
    return ReturnGate(found, GateState())


def test_without_a_gate_the_better_of_those_at_the_target_is_the_best() -> None:
    counters = RunCounters()
    NoGate().choose_best(counters, Candidate("1", GOOD, Verdict.WAIT, lambda: False))
    assert counters.best is None
    NoGate().choose_best(counters, Candidate("2", GOOD, Verdict.WAIT, lambda: True))
    NoGate().choose_best(counters, Candidate("3", {**GOOD, "iqm": 1.0}, Verdict.WAIT, lambda: True))
    assert counters.best == "2"


def test_a_gates_verdict_alone_makes_a_checkpoint_the_best_however_little_it_earned() -> None:
    counters, one = RunCounters(), gate()
    for name, verdict in (("1", Verdict.ACCEPT), ("2", Verdict.WAIT), ("3", Verdict.ACCEPT)):
        low = {**GOOD, "iqm": 9.0 - int(name)}
        one.choose_best(counters, Candidate(name, low, verdict, pytest.fail))
    assert counters.best == "3"


def test_the_learners_are_told_how_far_a_gate_is_open_once_the_dense_policy_holds() -> None:
    one = gate()
    assert (one.signals(), one.ended) == ({}, False)
    assert one.observe(GOOD, 10, behind=False) is Verdict.ACCEPT
    assert one.signals() == {"level": 0.5, "criterion": "l1"}
    assert one.report()["gate"]["trying"] == 0.5
    assert (NoGate().signals(), NoGate().report(), NoGate().ended) == ({}, {}, False)


def test_a_run_that_still_waits_for_its_return_says_so_unless_a_gate_works_it() -> None:
    assert "pruning.schedule.begin" in NoGate().what_failed(waits=True)
    assert "end the schedule earlier" in NoGate().what_failed(waits=False)
    assert "held the floor" in gate().what_failed(waits=True)
