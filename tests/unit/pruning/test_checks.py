import numpy as np
import pytest

from rayprune.pruning.checks import (
    count,
    is_finite,
    is_integer,
    is_number,
    sparsity,
    switch,
    unknown_keys,
    whole,
)

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("value", "number", "finite", "integer"),
    [
        (1, True, True, True),
        (0.5, True, True, False),
        (np.float32(0.5), True, True, False),
        (np.int64(3), True, True, True),
        (INF, True, False, False),
        (-INF, True, False, False),
        (NAN, False, False, False),
        (True, False, False, False),
        ("1", False, False, False),
        (None, False, False, False),
    ],
)
def test_what_counts_as_a_number(value, number, finite, integer):
    assert (is_number(value), is_finite(value), is_integer(value)) == (number, finite, integer)


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "1", NAN])
def test_a_count_is_an_integer_and_no_float(value):
    assert len(list(count("x", value))) == 1


@pytest.mark.parametrize(("value", "faults"), [(2.0, 0), (2, 0), (2.5, 1), (INF, 1), (0, 1)])
def test_a_whole_number_may_be_a_float(value, faults):
    assert len(list(whole("x", value, "whole", least=1))) == faults


@pytest.mark.parametrize(("value", "faults"), [(0, 0), (0.99, 0), (1, 1), (INF, 1), (NAN, 1)])
def test_a_sparsity_is_below_one(value, faults):
    assert len(list(sparsity("x", value))) == faults


def test_one_is_not_true_and_an_unknown_key_may_hold_a_dot():
    assert list(switch("x", 1)) == ["`x` must be true or false, but is 1."]
    (fault,) = unknown_keys("schedule", {"begin.at": 1}, ["begin", "end"])
    assert fault == "`schedule.begin.at` is not a known key. Did you mean 'begin'?"
