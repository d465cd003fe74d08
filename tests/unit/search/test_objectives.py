import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayprune.errors import ConfigError
from rayprune.search.objectives import Objectives

SPREAD = Objectives(directions={"return": "max", "sparsity": "max"})
LEAN = Objectives.from_dict({"sparsity": "max", "subject_to": {"return_at_least": 0.95}})


def result(**values):
    return {name.rstrip("_"): value for name, value in values.items()}


def results(*pairs):
    return [{"return": first, "sparsity": second} for first, second in pairs]


def test_a_yaml_block_becomes_objectives():
    assert Objectives.from_dict({"return": "max", "flops": "min"}).directions == {
        "return": "max",
        "flops": "min",
    }
    assert LEAN.names == ("sparsity",)
    assert LEAN.keys == ("sparsity", "return")
    assert LEAN.needs_dense_return
    assert not LEAN.with_dense_return(3.0).needs_dense_return


def test_a_dense_return_can_be_given():
    constraint = {"return_at_least": 0.9, "dense_return": 500}
    objectives = Objectives.from_dict({"sparsity": "max", "subject_to": constraint})
    assert objectives.floor == 450.0


def test_all_faults_come_together():
    found = Objectives.faults_of(
        {"retrun": "max", "flops": "mni", "subject_to": {"return_at_last": 95}}
    )
    assert found == [
        "`search.objectives.retrun` is not a known key. Did you mean 'return'?",
        "`search.objectives.flops` must be one of ['max', 'min'], but is 'mni'. "
        "Did you mean 'min'?",
        "`search.objectives.subject_to.return_at_last` is not a known key. "
        "Did you mean 'return_at_least'?",
    ]


@pytest.mark.parametrize("value", [None, [], {}, "return", 3])
def test_what_is_no_mapping_is_refused_with_an_example(value):
    (fault,) = Objectives.faults_of(value)
    assert "{return: max, sparsity: max}" in fault


@pytest.mark.parametrize("share", [0, -1, 1.2, 95, math.nan, True, "0.95", None])
def test_a_share_out_of_range_is_refused(share):
    (fault,) = Objectives.faults_of({"sparsity": "max", "subject_to": {"return_at_least": share}})
    assert "return_at_least` must be a share of the dense return in (0, 1]" in fault
    assert ("give 0.95" in fault) == (share == 95)


def test_a_constraint_alone_is_no_objective():
    (fault,) = Objectives.faults_of({"subject_to": {"return_at_least": 0.95}})
    assert "must name an objective" in fault
    (fault,) = Objectives.faults_of({"sparsity": "max", "subject_to": 0.95})
    assert "must be a mapping" in fault


def test_an_unknown_direction_is_refused_from_python_too():
    with pytest.raises(ConfigError, match="maximise"):
        Objectives(directions={"score": "maximise"})
    with pytest.raises(ConfigError, match="at least one"):
        Objectives(directions={})


@pytest.mark.parametrize(("dense", "floor"), [(500, 475), (-150, -157.5), (0, 0)])
def test_the_floor_lies_below_the_dense_return_whatever_its_sign(dense, floor):
    assert LEAN.with_dense_return(dense).floor == pytest.approx(floor)


@given(st.floats(-1e6, 1e6), st.floats(0.01, 1))
def test_the_dense_policy_itself_is_always_feasible(dense, share):
    constraint = {"return_at_least": share, "dense_return": dense}
    objectives = Objectives.from_dict({"sparsity": "max", "subject_to": constraint})
    assert objectives.feasible({"return": dense, "sparsity": 0.0})


def test_an_unknown_dense_return_is_said_and_not_guessed():
    with pytest.raises(ConfigError, match="isn't known yet"):
        LEAN.rank(results((1, 0)))


def test_feasible_beats_infeasible_then_sparser_then_the_return():
    lean = LEAN.with_dense_return(100)
    population = results((94, 0.99), (95, 0.5), (10, 0.2), (120, 0.7), (math.nan, 0.9), (94.9, 0))
    assert lean.rank(population) == [3, 1, 5, 0, 2, 4]
    assert lean.front(population) == [3]
    assert lean.tails(population, 0.25) == ([3, 1], [2, 4])


def test_minimised_objectives_are_turned_round():
    objectives = Objectives(directions={"flops": "min", "return": "max"})
    assert objectives.vector({"flops": 7, "return": 2}) == [-7.0, 2.0]
    population = [
        result(flops=5, return_=1),
        result(flops=9, return_=1),
        result(flops=9, return_=3),
    ]
    assert objectives.front(population) == [0, 2]
    assert objectives.worst_of(population) == [9.0, 1.0]
    assert objectives.hypervolume(population, [10, 0]) == 5 * 1 + 1 * 2


@pytest.mark.parametrize(
    "bad", [math.nan, math.inf, -math.inf, None, "9", True, [9], np.float64("nan")]
)
def test_what_was_not_measured_never_wins(bad):
    population = [
        {"return": bad, "sparsity": 0.99},
        {"sparsity": 0.98},
        {"return": -1e9, "sparsity": 0.0},
    ]
    assert SPREAD.rank(population) == [2, 0, 1]
    assert SPREAD.front(population) == [2]
    assert SPREAD.tails(population, 0.5) == ([2], [1])
    assert SPREAD.hypervolume(population, [-2e9, -1]) == pytest.approx(1e9)
    assert SPREAD.worst_of(population) == [-1e9, 0.0]


def test_where_nothing_was_measured_nobody_copies():
    assert SPREAD.tails([{}, {}, {}, {}]) == ([], [])
    assert SPREAD.worst_of([{}]) is None


@pytest.mark.parametrize(
    ("size", "count"), [(0, 0), (1, 0), (2, 1), (3, 1), (4, 1), (5, 2), (8, 2)]
)
def test_tails_are_a_quarter_and_never_more_than_half(size, count):
    best, worst = SPREAD.tails(results(*((i, i) for i in range(size))))
    assert len(best) == len(worst) == count
    assert not set(best) & set(worst)


def test_early_reports_are_not_taken_for_the_population():
    early = results((1, 1), (2, 2), (3, 3))
    assert SPREAD.tails(early, population=8) == ([], [])
    assert SPREAD.tails([*early, *early[:1]], population=8)[0] == [2]


def test_numbers_of_numpy_are_numbers():
    assert SPREAD.measured({"return": np.float32(1), "sparsity": np.int64(0)})


def test_what_is_below_the_reference_ranks_below_what_is_not():
    population = results((9.0, 0.99), (500.0, 0.5), (120.0, 0.9), (90.0, 0.95))
    assert SPREAD.tails(population)[0] in ([0], [1])  # the ends of one front
    above = Objectives(directions=SPREAD.directions, reference=(100.0, 0.0))
    assert set(above.rank(population)[:2]) == {1, 2}
    assert above.tails(population)[1] in ([0], [3])
    # Where nothing is above it, all compete as without it; the front leaves nothing out.
    poor = results((9.0, 0.99), (50.0, 0.5), (8.0, 0.9))
    assert above.rank(poor) == SPREAD.rank(poor)
    assert above.front(population) == SPREAD.front(population)
    fast = Objectives(directions={"flops": "min"}, reference=(50.0,))
    assert fast.rank([{"flops": 60}, {"flops": 40}]) == [1, 0]


def test_without_its_constraint_the_return_competes_again():
    free = LEAN.with_dense_return(100.0).unconstrained()
    assert free.directions == {"sparsity": "max", "return": "max"}
    assert free.front(results((10.0, 0.9), (99.0, 0.1), (5.0, 0.5))) == [0, 1]
    assert SPREAD.unconstrained() is SPREAD


def test_any_measurement_can_be_bounded():
    bounds = {"flops_at_most": 100, "sparsity_at_least": 0.5}
    lean = Objectives.from_dict({"return": "max", "subject_to": bounds})
    assert lean.keys == ("return", "flops", "sparsity")
    assert not lean.needs_dense_return
    population = [
        result(return_=9.0, flops=101, sparsity=0.5),  # a hundredth too many
        result(return_=1.0, flops=100, sparsity=0.5),
        result(return_=8.0, flops=90, sparsity=0.4),  # a fifth too dense
        result(return_=7.0, flops=150, sparsity=0.9),  # half too many
        result(return_=99.0, sparsity=0.9),  # not measured
    ]
    assert lean.rank(population) == [1, 0, 2, 3, 4]
    assert lean.front(population) == [1]
    # A trial keeps the checkpoints that come near the bounds, too.
    assert lean.unconstrained().directions == {"return": "max", "flops": "min", "sparsity": "max"}


def test_bounds_and_the_floor_under_the_return_add_up():
    constraint = {"return_at_least": 0.9, "dense_return": 100, "parameters_at_most": 0}
    both = Objectives.from_dict({"sparsity": "max", "subject_to": constraint})
    population = [
        result(sparsity=0.1, return_=45.0, parameters=0),  # half of the floor: 0.5
        result(sparsity=0.1, return_=81.0, parameters=0.3),  # 0.1, and 0.3 above zero
    ]
    assert both.rank(population) == [1, 0]
    assert [limit.text for limit in both.limits] == ["return >= 90", "parameters <= 0"]


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"flops_at_most": -1}, "`search.objectives.subject_to.flops_at_most` must be a number"),
        ({"latency_at_most": "fast"}, "must be a number of at least 0, but is 'fast'"),
        ({"sparsity_at_least": 90}, "sparsity_at_least` must be a sparsity in [0, 1], but is 90"),
        ({"flop_at_most": 1}, "Did you mean 'flops_at_most'?"),
        ({"return_at_most": 1}, "`search.objectives.subject_to.return_at_most` is not a known key"),
        ({"sparsity_at_most": 0.9}, "contradicts `sparsity: max`"),
        ({"flops_at_least": 9, "flops_at_most": 3}, "must not exceed `flops_at_most` (3.0)"),
        ({"flops_at_most": 9, "dense_return": 3}, "`search.objectives.subject_to.return_at_least`"),
    ],
)
def test_a_bound_that_makes_no_sense_is_refused(values, part):
    (fault,) = Objectives.faults_of({"sparsity": "max", "subject_to": values})
    assert part in fault
