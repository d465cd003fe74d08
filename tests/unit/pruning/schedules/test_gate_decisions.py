"""The gate's decisions, without any training."""

import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayprune.pruning.schedules.gate_decisions import Gate, GateState, Verdict, bar

SETTINGS = {
    "step": 0.5,
    "least_step": 0.2,
    "floor": 0.9,
    "patience": 20.0,
    "most": 0.9,
    "criteria": ("l1",),
    "reference": 100.0,
}


def gate(**changes):
    return Gate(**{**SETTINGS, **changes})


def run(settings, validations, state=None, start=10):
    """Feed (iqm, low) pairs, ten steps apart; return the state and the verdicts."""
    state = state or GateState()
    verdicts = [
        state.observe(settings, start + 10 * i, iqm, low)
        for i, (iqm, low) in enumerate(validations)
    ]
    return state, [verdict.value for verdict in verdicts]


def test_a_search_worked_by_hand():
    # Dense holds at 90; half of the weights go; then half of these fail for 20 steps and go back;
    # a quarter holds at once; its next quarter fails, and an eighth is below the least step.
    validations = [(60, 50), (95, 92), (80, 70), (95, 91), (50, 40), (60, 50), (99, 95)]
    state, verdicts = run(gate(), [*validations, (20, 10), (30, 20), (99, 99)])
    assert verdicts == [
        *("wait", "accept", "wait", "accept", "wait", "roll_back", "accept"),
        *("wait", "end", "end"),
    ]
    assert state.level == pytest.approx(1 - 0.5 * 0.75)
    assert [(one["sparsity"], one["held"]) for one in state.tries] == [
        (0.0, True),
        (0.5, True),
        (0.75, False),
        (0.625, True),
        (pytest.approx(0.71875), False),
    ]
    assert state.rollbacks == 2
    assert state.ended == "the smallest step did not hold"


def test_masks_that_a_trust_region_holds_back_are_not_accepted_and_their_patience_runs_on():
    state, _ = run(gate(), [(95, 92)])
    held = [state.observe(gate(), clock, 99, 98, behind=True) for clock in (20, 29)]
    assert held == [Verdict.WAIT, Verdict.WAIT]
    assert copy.deepcopy(state).observe(gate(), 30, 99, 98) is Verdict.ACCEPT
    assert state.observe(gate(), 30, 99, 98, behind=True) is Verdict.ROLL_BACK


def test_the_next_criterion_is_tried_before_a_smaller_step():
    settings = gate(criteria=("l1", "lamp"), patience=10.0)
    state, _ = run(settings, [(100, 100), *[(0, 0)] * 4])
    tries = [(one["criterion"], one["sparsity"]) for one in state.tries[1:]]
    assert tries == [("l1", 0.5), ("lamp", 0.5), ("l1", 0.25), ("lamp", 0.25)]
    assert state.ended is not None


def test_a_step_that_holds_gives_every_criterion_its_chance_again():
    settings = gate(criteria=("l1", "lamp"), patience=10.0, most=0.99)
    state, _ = run(settings, [(100, 100), (0, 0), (100, 100), (0, 0), (0, 0)])
    tries = [(one["criterion"], one["sparsity"], one["held"]) for one in state.tries[1:]]
    assert tries == [
        ("l1", 0.5, False),
        ("lamp", 0.5, True),
        ("lamp", 0.75, False),
        ("l1", 0.75, False),
    ]
    assert state.trying == pytest.approx(1 - 0.5 * 0.75)


def test_the_search_ends_at_the_bound_with_the_policy_that_reached_it():
    state, verdicts = run(gate(), [(100, 100)] * 6)
    assert verdicts == ["accept"] * 5 + ["end"]
    assert state.level == 0.9
    assert state.rollbacks == 0


def test_a_peak_rises_with_the_returns_and_nothing_is_pruned_before_the_beginning():
    settings = gate(reference=None, begin=25.0)
    state, verdicts = run(settings, [(10, 10), (50, 50), (40, 40), (60, 54), (70, 60)])
    assert verdicts == ["wait", "wait", "wait", "accept", "wait"]
    assert state.peak == 70


def test_a_negative_reference_may_fall_by_as_much_as_a_positive_one():
    assert bar(200.0, 0.9) == pytest.approx(180.0)
    assert bar(-200.0, 0.9) == pytest.approx(-220.0)
    _, verdicts = run(gate(reference=-200.0), [(-300, -310), (-210, -219.9)])
    assert verdicts == ["wait", "accept"]


returns = st.lists(st.tuples(st.floats(-200, 200), st.floats(0, 30)), min_size=1, max_size=80)
settings = st.builds(
    gate,
    step=st.floats(0.05, 0.9),
    least_step=st.just(0.05),
    floor=st.floats(0.5, 1.0),
    patience=st.floats(1, 50),
    most=st.floats(0.1, 0.999),
    criteria=st.sampled_from([("l1",), ("l1", "lamp"), ("l1", "l2", "lamp")]),
    reference=st.none() | st.floats(-150, 150),
)


@given(settings, returns)
def test_no_policy_below_the_floor_is_ever_accepted(settings, validations):
    pairs = [(iqm, iqm - width) for iqm, width in validations]
    state = GateState()
    level = 0.0
    for i, (iqm, low) in enumerate(pairs):
        best = max(other for other, _ in pairs[: i + 1])
        reference = best if settings.reference is None else settings.reference
        verdict = state.observe(settings, 10 * i, iqm, low)
        if verdict is Verdict.ACCEPT:
            assert low >= bar(reference, settings.floor)
            assert state.level >= level
            level = state.level
        else:
            assert (state.level or 0.0) == level
        assert level <= settings.most


@given(settings, returns)
def test_it_always_ends_once_the_dense_policy_holds(settings, validations):
    settings = gate(**{**vars(settings), "reference": 0.0})
    state = GateState()
    state.observe(settings, 0, 100, 100)
    for i in range(6000):
        if state.ended is not None:
            break
        iqm, width = validations[i % len(validations)]
        state.observe(settings, 10 * (i + 1), iqm, iqm - width)
    assert state.ended is not None
    assert state.observe(settings, 10**9, 1e9, 1e9) is Verdict.END


@given(settings, returns, st.integers(0, 80))
def test_interrupted_anywhere_it_goes_on_the_same(settings, validations, cut):
    pairs = [(iqm, iqm - width) for iqm, width in validations]
    whole, verdicts = run(settings, pairs)
    first, head = run(settings, pairs[:cut])
    held = GateState(**json.loads(json.dumps(first.to_dict())))
    second, tail = run(settings, pairs[cut:], state=held, start=10 + 10 * len(pairs[:cut]))
    assert (head + tail, second.to_dict()) == (verdicts, whole.to_dict())


def test_a_gates_times_are_fractions_of_the_run_or_env_steps():
    from rayprune.pruning.config import PruningConfig

    config = PruningConfig(schedule={"kind": "gated", "patience": 0.1, "begin": 500})
    made = Gate.of(config.schedule, horizon=10_000, most=0.9, criterion="l2")
    assert (made.patience, made.begin, made.criteria, made.reference) == (1000, 500, ("l2",), None)
