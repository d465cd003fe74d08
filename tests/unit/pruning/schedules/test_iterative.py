"""Schedules in rounds, and beginnings that wait for a return."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from rayprune.errors import ConfigError
from rayprune.pruning.config import PruningConfig
from rayprune.pruning.pruner import Pruner
from rayprune.pruning.schedules import GatedSchedule, IterativeSchedule, LotterySchedule


@pytest.fixture
def two_layers():
    return nn.Sequential(nn.Linear(8, 64), nn.Tanh(), nn.Linear(64, 4))


def test_five_rounds_of_a_fifth_by_hand():
    # What is left: 100, 80, 64, 51.2, 40.96, 32.768 %; the target is reached by the fifth round.
    rounds = IterativeSchedule(final=0.6, begin=100, end=500, share=0.2)
    at = [rounds.sparsity_at(step) for step in (99, 100, 199, 200, 300, 400, 499, 500)]
    assert at == pytest.approx([0, 0.2, 0.2, 0.36, 0.488, 0.5904, 0.5904, 0.6])


@given(
    final=st.floats(0, 0.99),
    share=st.floats(0.05, 0.9),
    steps=st.lists(st.integers(0, 500), min_size=2, max_size=9),
)
def test_no_round_prunes_more_than_its_share_and_the_last_ends_at_the_target(final, share, steps):
    schedule = IterativeSchedule(final=final, begin=100, end=300, share=share)
    values = [schedule.sparsity_at(step) for step in sorted(steps)]
    assert values == sorted(values)
    assert schedule.sparsity_at(99) == 0
    assert schedule.sparsity_at(300) == final
    left = [1 - schedule.sparsity_at(99 + i / 50) for i in range(50 * 202)]
    kept = [after / before for before, after in pairwise(left)]
    assert min(kept) >= 1 - share - 1e-9


def test_as_many_rounds_as_a_slow_loop_counts():
    for final, share in (
        (0.9, 0.2),
        (0.488, 0.2),
        (0.51, 0.3),
        (0.5, 0.5),
        (0.75, 0.5),
        (0.1, 0.2),
    ):
        left, rounds = 1.0, 0
        while left > 1 - final + 1e-12:
            left, rounds = left * (1 - share), rounds + 1
        assert IterativeSchedule(final=final, begin=0, end=1, share=share).rounds == rounds


def test_a_ticket_is_pruned_by_the_same_share_at_the_end_of_each_round():
    # Density 1/8 after three rounds: half of what is left each time.
    ticket = LotterySchedule(final=0.875, rounds=3, rewind_to=50, round_steps=100)
    at = [ticket.sparsity_at(step) for step in (0, 149, 150, 249, 250, 349, 350, 999)]
    assert at == pytest.approx([0, 0, 0.5, 0.5, 0.75, 0.75, 0.875, 0.875])


def lottery(**keys):
    return PruningConfig(sparsity=0.8, schedule={"kind": "lottery", **keys}, horizon=10_000)


def test_the_rounds_and_the_tickets_own_training_share_the_run_equally():
    config = lottery(rounds=3, rewind_to=2000)
    schedule = config.build_schedule(0.8)
    assert (schedule.begin, schedule.end, config.every) == (4000, 8000, 2000)
    assert lottery(rounds=3, rewind_to=0.2).build_schedule(0.8) == schedule
    assert lottery(rounds=3, rewind_to=0, round_steps=500).build_schedule(0.8).end == 1500


@pytest.mark.parametrize("rounds", [1, 3, 7])
def test_a_pruner_meets_the_end_of_every_round(rounds, two_layers):
    config = lottery(rounds=rounds, rewind_to=0)
    pruner = Pruner(two_layers, config)
    schedule = config.build_schedule(0.8)
    for number in range(1, rounds + 1):
        end = number * config.every
        pruner.update(end - 1)
        assert pruner.sparsity() == pytest.approx(schedule.sparsity_at(end - 1), abs=0.02)
        pruner.update(end)
        assert pruner.sparsity() == pytest.approx(1 - 0.2 ** (number / rounds), abs=0.02)
    assert pruner.finished(rounds * config.every)


def waiting(**keys):
    schedule = {"kind": "linear", "begin": {"return": 300}, "end": 400, "every": 100, **keys}
    return PruningConfig(sparsity=0.8, schedule=schedule, horizon=10_000)


def test_nothing_is_pruned_before_the_return_and_the_ramp_counts_from_there(two_layers):
    pruner = Pruner(two_layers, waiting())
    assert pruner.update(9_999) is None
    assert not pruner.finished(9_999)
    pruner.config = waiting(began=5_050)
    assert pruner.update(5_000) is None
    pruner.update(5_250)
    assert pruner.sparsity() == pytest.approx(0.4, abs=0.01)
    pruner.update(5_450)
    assert pruner.sparsity() == pytest.approx(0.8, abs=0.01)
    assert pruner.finished(5_450)


def gated(**changes):
    schedule = {"kind": "gated", "begin": 0, **changes.pop("schedule", {})}
    return PruningConfig(schedule=schedule, horizon=1000, **changes)


def test_a_gate_prunes_to_its_level_within_its_bound(two_layers):
    pruner = Pruner(two_layers, gated(sparsity=0.5), driven=True)
    pruner.update(1)
    assert pruner.sparsity() == 0
    for level, expected in ((0.2, 0.2), (0.36, 0.36), (0.9, 0.5)):
        pruner.config = gated(sparsity=0.5, schedule={"level": level})
        assert not pruner.finished(2)
        pruner.update(2)
        assert pruner.sparsity() == pytest.approx(expected, abs=0.01)
    assert pruner.finished(2)


def test_a_gate_without_a_bound_reaches_what_protection_leaves(two_layers):
    pruner = Pruner(two_layers, gated(protect=["2"], schedule={"level": 0.99}))
    pruner.update(1)
    free, held = two_layers[0].weight.numel(), two_layers[2].weight.numel()
    assert pruner.sparsity() == pytest.approx(free / (free + held), abs=0.01)


def test_a_gate_of_sparsity_zero_is_a_dense_run(two_layers):
    pruner = Pruner(two_layers, gated(sparsity=0.0))
    pruner.update(1)
    assert pruner.finished(1)
    assert pruner.sparsity() == 0
    assert GatedSchedule(final=0.0, begin=5).end == 5
    assert math.isinf(GatedSchedule(final=0.5, begin=5).end)


@pytest.mark.parametrize(
    "kind",
    [
        {"kind": "iterative", "share": 0.3},
        {"kind": "lottery", "rounds": 2, "rewind_to": 100},
        {"kind": "gated", "criteria": ["l1", "l2"]},
        {"kind": "cubic", "begin": {"return": -5.0}},
    ],
)
def test_a_config_survives_its_plain_form(kind):
    config = PruningConfig(sparsity=0.5, schedule=kind)
    assert PruningConfig.from_dict(config.to_dict()) == config
    assert config.needs_horizon


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"kind": "lottery", "rounds": 3}, "`schedule.rewind_to` is missing: .* Give 0"),
        ({"kind": "lottery", "rewind_to": 0}, "`schedule.rounds` is missing"),
        ({"kind": "lottery", "rounds": 1.5, "rewind_to": 0}, "rounds` must be an integer"),
        ({"kind": "lottery", "rounds": 1, "rewind_to": 0, "begin": 0}, "begin` is not a known key"),
        ({"kind": "lottery", "rounds": 1, "rewind_to": 0, "round_steps": 0}, "must be above 0"),
        ({"kind": "iterative", "share": 1.0}, r"share` must be in \(0, 1\)"),
        ({"kind": "gated", "end": 0.9}, "end` is not a known key"),
        ({"kind": "gated", "floor": 1.2}, r"floor` must be in \(0, 1\]"),
        ({"kind": "gated", "step": 0}, r"step` must be in \(0, 1\)"),
        ({"kind": "gated", "patience": 0}, "patience` must be above 0"),
        ({"kind": "gated", "reference": "best"}, "'peak', 'dense' or a return"),
        ({"kind": "gated", "criteria": ["l1", "l3"]}, "criteria` must be one of .*'l3'"),
        ({"kind": "cubic", "begin": {"returns": 3}}, "a time or {return: R}"),
    ],
)
def test_each_fault_of_a_round_is_worded(values, words):
    with pytest.raises(ConfigError, match=words):
        PruningConfig(sparsity=0.5, schedule=values)


@pytest.mark.parametrize(
    "kind", [{"kind": "gated"}, {"kind": "lottery", "rounds": 2, "rewind_to": 0}]
)
def test_what_prunes_in_rounds_does_not_fade(kind):
    with pytest.raises(ConfigError, match="`operation` must be 'zero'"):
        PruningConfig(sparsity=0.5, schedule=kind, operation={"scale": 0.5, "steps": 2})


def test_a_gate_takes_no_threshold():
    with pytest.raises(ConfigError, match="`threshold` can't be used with a gated schedule"):
        PruningConfig(threshold={"absolute": 0.1}, schedule={"kind": "gated"})


def test_each_of_a_gates_criteria_is_checked_like_the_configs_own():
    schedule = {"kind": "gated", "criteria": ["l1", "shapley"]}
    with pytest.raises(ConfigError, match="'shapley' scores units, but `granularity` is 'weight'"):
        PruningConfig(schedule=schedule)
    assert PruningConfig(schedule=schedule, granularity="neuron").gated
