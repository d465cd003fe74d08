"""Steps to a share of the reference, dips and recoveries, on curves that are made up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayprune.tracking.learning import dips_of, learning_of, over_seeds, steps_to


def row(step, value=None, churn=0.0, validation=None):
    held = {"env_steps": step, "return_mean": value, "mask_churn": churn}
    return held if validation is None else {**held, "validation": {"iqm": validation}}


def test_the_first_step_at_a_share_of_the_reference_counts_even_if_it_is_lost_again():
    rows = [row(10, 40.0), row(20, 81.0), row(30, 60.0), row(40, 96.0)]
    told = learning_of(rows, dense=100.0)["training"]
    assert told["reference_is"] == "dense"
    assert told["steps_to"] == {"50": 20, "80": 20, "90": 40, "95": 40}


def test_without_a_dense_reference_the_peak_is_it():
    told = learning_of([row(10, 10.0), row(20, 50.0), row(30, 45.0)])["training"]
    assert (told["reference"], told["reference_is"]) == (50.0, "peak")
    assert told["steps_to"]["95"] == 20


def test_a_share_that_is_never_reached_has_no_step():
    assert learning_of([row(10, 10.0)], dense=500.0)["training"]["steps_to"]["50"] is None


def test_shares_of_a_negative_reference_lie_below_it():
    points = [(10, -1200.0), (20, -180.0), (30, -131.0)]
    # Half of the size of -120 below it is -180; a tenth is -132.
    assert [steps_to(points, -120.0, share) for share in (0.5, 0.9, 0.95)] == [20, 30, None]


def test_a_dip_is_measured_from_the_return_before_to_the_lowest_before_the_next_update():
    rows = [row(10, 100.0), row(20, 98.0, churn=0.1), row(30, 60.0), row(40, 97.0), row(50, 98.0)]
    (update,) = learning_of(rows)["training"]["updates"]
    # The iteration of the update still sampled with the old masks: 98 is "before".
    assert update == {
        "step": 20,
        "before": 98.0,
        "depth": 38.0,
        "recovery_steps": 30,
        "watched_steps": 30,
    }


def test_a_dip_that_the_next_update_interrupts_is_censored():
    rows = [row(10, 100.0, churn=0.1), row(20, 80.0, churn=0.1), row(30, 85.0), row(40, 79.0)]
    told = learning_of(rows)["training"]
    first, second = told["updates"]
    assert (first["depth"], first["recovery_steps"], first["watched_steps"]) == (20.0, None, 10)
    # It starts from the 80 that the first one had left, and ends with the run.
    assert (second["before"], second["depth"], second["recovery_steps"]) == (80.0, 1.0, None)
    assert told["dips"] == {
        "updates": 2,
        "observed": 2,
        "deepest": 20.0,
        "median_depth": 10.5,
        "recovered": 0,
        "median_recovery_steps": None,
    }


def test_no_dip_takes_no_time_to_recover():
    (dip,) = dips_of([(10, 50.0), (20, 55.0)], [10], after_only=True)
    assert (dip.depth, dip.recovery_steps) == (0.0, 0)


def test_a_recovery_before_the_lowest_point_does_not_count():
    (dip,) = dips_of([(10, 50.0), (20, 51.0), (30, 20.0), (40, 50.0)], [10], after_only=True)
    assert dip.recovery_steps == 30


def test_a_validation_of_the_updates_own_row_is_already_the_pruned_policys():
    rows = [row(10, 1.0, validation=90.0), row(20, 1.0, churn=0.2, validation=70.0)]
    rows += [row(30, 1.0, validation=91.0), row(40, 1.0, churn=0.2, validation=10.0)]
    first, second = learning_of(rows)["validation"]["updates"]
    assert (first["before"], first["depth"], first["recovery_steps"]) == (90.0, 20.0, 10)
    assert (second["before"], second["depth"], second["recovery_steps"]) == (91.0, 81.0, None)


def test_updates_that_no_return_follows_are_counted_but_not_observed():
    rows = [row(10, 1.0, validation=5.0), row(20, 1.0, churn=0.1), row(30, 1.0, churn=0.1)]
    assert learning_of(rows)["validation"]["dips"] == {
        "updates": 2,
        "observed": 0,
        "deepest": None,
        "median_depth": None,
        "recovered": 0,
        "median_recovery_steps": None,
    }


def test_the_median_recovery_takes_a_censored_one_as_the_longest():
    rows = [row(0, 10.0, churn=0.1), row(5, 5.0), row(10, 10.0, churn=0.1), row(15, 5.0)]
    rows += [row(30, 10.0, churn=0.1), row(40, 2.0)]
    told = learning_of(rows)["training"]["dips"]
    assert (told["recovered"], told["median_recovery_steps"]) == (2, 20.0)


def test_a_run_without_returns_has_no_curve():
    assert learning_of([row(10)]) == {"training": None, "validation": None}


def test_offline_rows_count_updates():
    rows = [{"env_steps": 0, "updates": n, "return_mean": None} for n in (100, 200)]
    rows[1]["validation"] = {"iqm": 7.0}
    assert learning_of(rows)["validation"]["steps_to"]["50"] == 200


def test_the_spread_over_seeds_is_of_those_that_arrived():
    blocks = [
        learning_of([row(10, 50.0), row(20 + n, 100.0)], dense=d)
        for n, d in ((0, 100.0), (4, 100.0), (0, 900.0))
    ]
    told = over_seeds(blocks)
    assert told["runs"] == 3
    assert told["steps_to"]["90"]["reached"] == 2
    assert told["steps_to"]["90"]["mean"] == 22.0
    assert told["steps_to"]["90"]["sd"] == pytest.approx(8**0.5)
    assert over_seeds(blocks[:1])["steps_to"]["90"]["sd"] is None


curves = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=30)


@given(curves, st.data())
def test_dips_are_what_a_slow_reading_of_their_definition_gives(values, data):
    points = [(10 * n, value) for n, value in enumerate(values)]
    updates = sorted(data.draw(st.sets(st.sampled_from([step for step, _ in points]))))
    for dip in dips_of(points, updates, after_only=True):
        later = [step for step in updates if step > dip.step]
        limit = later[0] if later else points[-1][0]
        seen = [value for step, value in points if dip.step < step <= limit]
        assert dip.before == dict(points)[dip.step]
        assert dip.depth == max(0.0, dip.before - min(seen))
        if dip.depth and dip.recovery_steps is not None:
            assert dict(points)[dip.step + dip.recovery_steps] >= dip.before
            assert dip.step + dip.recovery_steps <= limit
