"""The schedule of networks that compete: how far the next ones go, and what it goes with."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayprune import PruningConfig
from rayprune.pruning.schedules import AdaptiveSchedule

BASE = {"sparsity": 0.9, "horizon": 10_000, "schedule": {"kind": "adaptive"}}


def test_the_exponent_one_follows_a_straight_line_to_nothing_at_the_end():
    race = AdaptiveSchedule(final=0.99, begin=0, end=100, step=1.0)
    sparsity = 0.0
    for clock in range(0, 90, 10):
        sparsity = race.rivals_sparsity(sparsity, clock, 10, exponent=1.0)
        assert sparsity == pytest.approx((clock + 10) / 100)


@given(
    sparsity=st.floats(0, 0.9),
    clock=st.floats(0, 2000),
    every=st.integers(1, 3000),
    exponent=st.floats(0, 3),
)
def test_rivals_are_never_denser_never_beyond_the_bound_and_go_small_steps(
    sparsity, clock, every, exponent
):
    race = AdaptiveSchedule(final=0.9, begin=0, end=1000, step=0.02)
    found = race.rivals_sparsity(sparsity, clock, every, exponent)
    assert sparsity <= found <= 0.9
    assert found <= sparsity + 0.02
    assert race.rivals_sparsity(sparsity, clock, every, 0.0) == pytest.approx(sparsity)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"schedule": {"kind": "adaptive", "networks": 1}}, "schedule.networks` must be an int"),
        ({"schedule": {"kind": "adaptive", "step": 0}}, "schedule.step` must be in (0, 1]"),
        ({"schedule": {"kind": "adaptive", "begin": {"return": 3}}}, "schedule.begin` must be a"),
        ({"criterion": "taylor"}, "is measured on one network"),
        ({"granularity": "2:4", "sparsity": None}, "no sparsity that could rise"),
        ({"groups": {"policy": {"sparsity": 0.5}}}, "groups` can't be given with"),
        (
            {"schedule": {"kind": "cubic"}, "groups": {"pi": {"schedule": {"kind": "adaptive"}}}},
            "trains several copies of the whole network",
        ),
        ({"operation": {"scale": 0.5, "steps": 2}}, "operation` must be 'zero'"),
        ({"compact_every": 100, "granularity": "neuron"}, "trains several networks"),
    ],
)
def test_what_several_networks_cannot_have_is_refused(change, says):
    assert PruningConfig.faults_of(BASE) == []
    assert any(says in fault for fault in PruningConfig.faults_of({**BASE, **change}))
