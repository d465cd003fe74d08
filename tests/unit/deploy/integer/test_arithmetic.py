"""The model of whole numbers against Python's own, which are exact."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayprune.deploy.integer import arithmetic


@settings(max_examples=60, deadline=None)
@given(st.integers(-(2**31) + 1, 2**31 - 1), st.integers(0, 2**31 - 1), st.integers(1, 62))
def test_a_fixed_point_product_is_the_nearest_whole_number_halves_up(
    number: int, by: int, shift: int
) -> None:
    exact = Fraction(number * by, 2**shift) + Fraction(1, 2)
    found = arithmetic.rescaled(np.array([[number]]), np.array([by]), shift, -(2**31), 2**31 - 1)
    assert int(found[0, 0]) == max(-(2**31), min(2**31 - 1, math.floor(exact)))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=5))
def test_scales_become_multipliers_that_are_as_near_as_31_bits_allow(scales: list[float]) -> None:
    multipliers, shift = arithmetic.fixed_point(np.array(scales))
    assert 1 <= shift <= 62
    assert multipliers.min() >= 0
    assert np.abs(multipliers / 2.0**shift - scales).max() <= 2.0**-shift


def test_a_scale_beyond_all_bounds_takes_whatever_is_not_zero_to_them() -> None:
    multipliers, shift = arithmetic.fixed_point(np.array([2.0**40, 1.0]))
    found = arithmetic.rescaled(np.array([[1, 0], [-1, 0]]), multipliers, shift, -128, 127)
    assert found[:, 0].tolist() == [127, -128]
    assert not found[:, 1].any()


def test_observations_are_rounded_halves_away_from_zero_and_clipped_and_nan_is_zero() -> None:
    values = [0.5, -0.5, 1.49, 1e30, -np.inf, np.nan, 0.49999997]
    found = arithmetic.quantised(np.array(values, np.float32), 1.0, -3, 7)
    assert found.tolist() == [1, -1, 1, 7, -3, 0, 1]  # the last: float32 adds a half to one


@pytest.mark.parametrize(("bits", "near"), [(7, 5e-4), (9, 7e-5)])
def test_tanh_by_a_table_is_near_tanh_odd_and_never_falls(bits: int, near: float) -> None:
    numbers = np.arange(-(2**15) + 1, 2**15)
    found = arithmetic.tanh(numbers, arithmetic.tanh_table(bits))
    exact = np.tanh(numbers / arithmetic.TANH_INPUT)
    assert np.abs(found / arithmetic.TANH_OUTPUT - exact).max() < near
    assert (found == -found[::-1]).all()
    assert (np.diff(found) >= 0).all()
