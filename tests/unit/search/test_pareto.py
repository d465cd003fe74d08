import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayprune.errors import NonFiniteError
from rayprune.search import pareto
from rayprune.search.pareto import front, hypervolume, non_dominated_sort, rank, scattered_subset

# Few distinct values, so that most draws hold ties and duplicates.
COORDINATES = st.integers(0, 4).map(float)


def point_sets(least=1):
    return st.integers(1, 4).flatmap(
        lambda width: st.lists(
            st.lists(COORDINATES, min_size=width, max_size=width), min_size=least, max_size=14
        )
    )


def dominates(one, other):
    """The definition, word for word."""
    return all(a >= b for a, b in zip(one, other, strict=True)) and one != other


def random_sets(count=12):
    rng = np.random.default_rng(0)
    for number in range(count):
        width = 2 + number % 3
        points = rng.random((60, width))
        if number % 2:
            points = points.round(1)  # ties
        yield np.concatenate([points, points[:7]])  # duplicates


def test_fronts_peel_off_one_by_one():
    points = [[1, 1], [3, 1], [1, 3], [2, 2], [0, 0], [3, 0]]
    assert non_dominated_sort(points) == [[1, 2, 3], [0, 5], [4]]


def test_duplicates_share_a_front():
    assert non_dominated_sort([[1, 1], [2, 2], [2, 2], [1, 1]]) == [[1, 2], [0, 3]]


def test_no_points_have_no_fronts():
    assert non_dominated_sort([]) == []
    assert front([]) == rank([]) == scattered_subset([], 3) == []
    assert hypervolume([], [0, 0]) == 0.0


@pytest.mark.parametrize("function", [non_dominated_sort, front, rank])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused(function, bad):
    with pytest.raises(NonFiniteError, match="Point 1"):
        function([[0.0, 1.0], [bad, 2.0]])


def test_points_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"\(n, 2\)"):
        hypervolume([[1.0, 2.0, 3.0]], [0.0, 0.0])
    with pytest.raises(ValueError, match="shape"):
        front([1.0, 2.0])


@given(point_sets())
def test_no_front_holds_a_point_and_what_dominates_it(points):
    fronts = non_dominated_sort(points)
    assert sorted(itertools.chain.from_iterable(fronts)) == list(range(len(points)))
    for number, members in enumerate(fronts):
        assert not any(dominates(points[i], points[j]) for i in members for j in members)
        for member in members if number else []:
            assert any(dominates(points[i], points[member]) for i in fronts[number - 1])
    assert front(points) == fronts[0]


def test_fronts_equal_pymoos():
    sorting = pytest.importorskip("pymoo.util.nds.non_dominated_sorting")
    for points in random_sets():
        theirs = sorting.NonDominatedSorting().do(-points)
        assert non_dominated_sort(points) == [sorted(map(int, members)) for members in theirs]


def test_hypervolume_of_a_staircase_and_of_a_box():
    assert hypervolume([[1, 3], [2, 2], [3, 1]], [0, 0]) == 6.0
    assert hypervolume([[1, 3], [2, 2], [3, 1]], [1, 1]) == 1.0
    assert hypervolume([[2, 3, 4]], [1, 1, 1]) == 6.0
    # Three unit columns of height 2 that share the unit cube at the origin.
    assert hypervolume([[2, 1, 1], [1, 2, 1], [1, 1, 2]], [0, 0, 0]) == 4.0
    assert hypervolume([[3.0], [5.0]], [1.0]) == 4.0


def test_points_that_do_not_exceed_the_reference_add_nothing():
    assert hypervolume([[5, 0], [0, 5], [-1, 9]], [0, 0]) == 0.0
    assert hypervolume([[5, 0], [2, 2]], [0, 0]) == 4.0


def test_hypervolumes_equal_pymoos():
    hv = pytest.importorskip("pymoo.indicators.hv")
    for points in random_sets():
        for reference in (np.zeros(points.shape[1]), np.full(points.shape[1], 0.3)):
            theirs = float(hv.HV(ref_point=-reference).do(-points))
            assert hypervolume(points, reference.tolist()) == pytest.approx(theirs, abs=1e-12)


@given(point_sets())
def test_hypervolume_counts_the_unit_cells_that_are_dominated(points):
    width = len(points[0])
    cells = itertools.product(range(4), repeat=width)
    dominated = sum(
        any(all(p > c for p, c in zip(q, cell, strict=True)) for q in points) for cell in cells
    )
    assert hypervolume(points, [0.0] * width) == pytest.approx(dominated)


@given(point_sets(), st.data())
def test_hypervolume_grows_with_points_and_ignores_order_and_the_dominated(points, data):
    reference = [-1.0] * len(points[0])
    whole = hypervolume(points, reference)
    shuffled = data.draw(st.permutations(points))
    assert hypervolume(shuffled, reference) == pytest.approx(whole)
    assert hypervolume(points[:-1], reference) <= whole + 1e-9
    assert hypervolume([points[i] for i in front(points)], reference) == pytest.approx(whole)


def test_extremes_come_first_and_then_the_farthest():
    line = [[x, 1 - x] for x in (0.0, 0.05, 0.1, 0.5, 0.9, 1.0)]
    assert scattered_subset(line, 3) == [5, 0, 3]
    assert scattered_subset(line, 2) == [5, 0]
    assert scattered_subset(line, 1) == [5]
    assert scattered_subset(line, 99)[:4] == [5, 0, 3, 2]


def test_the_scale_of_an_objective_does_not_matter():
    rng = np.random.default_rng(1)
    points = rng.random((30, 3))
    assert scattered_subset(points, 9) == scattered_subset(points * [1.0, 1e6, 1e-6], 9)
    assert rank(points) == rank(points * [1.0, 1e6, 1e-6])


def test_crowded_members_of_a_front_rank_last():
    points = [[0.0, 1.0], [0.49, 0.51], [0.5, 0.5], [0.51, 0.49], [1.0, 0.0]]
    order = rank(points)
    assert order[:2] == [4, 0]
    assert len({1, 2, 3} & set(order[:3])) == 1


def test_a_later_front_ranks_what_is_far_from_all_before_it():
    points = [[0.0, 1.0], [1.0, 0.0], [0.9, -0.01], [0.4, 0.4]]
    assert rank(points) == [1, 0, 3, 2]


def test_one_objective_ranks_by_it():
    assert rank([[3.0], [9.0], [1.0], [9.0]]) == [1, 3, 0, 2]


@given(point_sets(least=0))
def test_a_rank_is_a_permutation_that_goes_by_front(points):
    order = rank(points)
    assert sorted(order) == list(range(len(points)))
    level = {index: number for number, f in enumerate(non_dominated_sort(points)) for index in f}
    assert [level[index] for index in order] == sorted(level.values())


@given(point_sets(), st.integers(0, 16))
@settings(max_examples=50)
def test_scattering_is_greedy_farthest_first(points, size):
    chosen = scattered_subset(points, size)
    assert len(chosen) == len(set(chosen)) == min(size, len(points))
    assert chosen == scattered_subset(points, len(points))[: len(chosen)]
    scaled = pareto._scaled(np.asarray(points))

    def nearest(index, taken):
        return min(float(((scaled[index] - scaled[other]) ** 2).sum()) for other in taken)

    extremes = len(points[0])
    for count in range(extremes, len(chosen)):
        rest = [i for i in range(len(points)) if i not in chosen[:count]]
        distances = [nearest(i, chosen[:count]) for i in rest]
        assert nearest(chosen[count], chosen[:count]) == pytest.approx(max(distances))
