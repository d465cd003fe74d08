import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayprune.fit.budgets import Budgets
from rayprune.fit.candidates import Candidate
from rayprune.fit.feasibility import FITS, PRESUMED, TOO_MUCH, assess
from rayprune.fit.untrained import Left


def candidate(chain, weights):
    made = Candidate(
        hiddens=(weights,), granularity=chain, sparsity=0.0 if chain == "dense" else 0.5
    )
    return made, Left(weights, weights)


class Meter:
    """A target on which a file takes 100 bytes beside its weights."""

    def __init__(self, bytes_a_weight=8, ram=0):
        self.asked = []
        self.bytes_a_weight, self.ram = bytes_a_weight, ram

    def __call__(self, one):
        self.asked.append(one.name)
        return {"flash_bytes": 100.0 + self.bytes_a_weight * one.hiddens[0], "ram_bytes": self.ram}


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 5000), min_size=1, max_size=12, unique=True),
    limit=st.integers(1, 60_000),
)
def test_bisection_tells_what_measuring_each_would(sizes, limit):
    meter = Meter()
    candidates = [candidate("weight", size) for size in sizes]
    found = assess(candidates, Budgets({"flash": float(limit)}), meter)
    feasible = {one.left.weights for one in found.feasible}
    assert feasible == {size for size in sizes if 100 + 8 * size <= limit}
    assert len(meter.asked) <= 2 + math.ceil(math.log2(len(sizes) + 1))
    assert len(meter.asked) == len(set(meter.asked))


def test_what_is_too_large_by_its_weights_alone_is_not_measured():
    meter = Meter()
    found = assess(
        [candidate("dense", 1000), candidate("dense", 10)], Budgets({"flash": 500.0}), meter
    )
    assert meter.asked == ["10-dense"]
    large, small = found.assessments
    assert (large.verdict, large.reason) == (
        TOO_MUCH,
        "its weights alone: flash 4,000 B of 500 B",
    )
    assert (small.verdict, small.reason) == (FITS, "flash 180 B of 500 B")


def test_the_largest_that_fits_come_first_and_of_alike_ones_the_narrower():
    wide = Candidate(hiddens=(64, 64), granularity="weight", sparsity=0.5), Left(1000, 1000)
    narrow = Candidate(hiddens=(32, 32), granularity="weight", sparsity=0.0), Left(990, 990)
    small = Candidate(hiddens=(8, 8), granularity="weight", sparsity=0.0), Left(100, 100)
    found = assess(
        [small, wide, narrow], Budgets({"parameters": 5000.0}), lambda _: {"parameters": 9.0}
    )
    assert [one.candidate.name for one in found.assessments] == [
        "32x32-dense",
        "64x64-weight-50",
        "8x8-dense",
    ]


def test_a_refusal_names_the_tightest_budget_and_the_limits_that_would_do():
    found = assess(
        [candidate("dense", 100), candidate("neuron", 50)],
        Budgets({"flash": 450.0, "ram": 16.0}),
        Meter(ram=64.0),
    )
    assert found.feasible == []
    told = found.refusal()
    assert told.startswith("Not feasible, because of `ram`: the nearest candidate, 50-neuron-50")
    assert "takes 64 B, and 16 B are allowed" in told
    assert "--flash 500 --ram 64 (of a job: --set fit.flash=500 --set fit.ram=64)" in told


def test_a_figure_that_the_target_does_not_give_is_told_not_taken_for_zero():
    found = assess(
        [candidate("dense", 10)],
        Budgets({"ram": 100.0}),
        lambda _: {"flash_bytes": 1.0, "ram_bytes": None},
    )
    assert "because `ram` can't be measured" in found.refusal()


def test_a_refusal_by_counting_alone_measures_nothing():
    def never(_):
        raise AssertionError

    found = assess([candidate("dense", 100)], Budgets({"parameters": 10.0}), never)
    assert "the weights of the smallest candidate alone are 100, and 10 are" in found.refusal()


@pytest.mark.parametrize("limit", [1e9, 1500.0, 900.0])
def test_what_was_not_measured_is_judged_by_a_larger_that_fits_or_a_smaller_that_does_not(limit):
    found = assess(
        [candidate("weight", size) for size in (10, 20, 40, 80, 160, 320)],
        Budgets({"flash": limit}),
        Meter(),
    )
    by_name = {one.candidate.name: one for one in found.assessments}
    guessed = [one for one in found.assessments if " than " in one.reason]
    assert guessed
    for one in guessed:
        word, name = one.reason.split(" than ")
        other = by_name[name]
        assert other.figures is not None
        assert other.feasible == one.feasible
        if one.verdict == PRESUMED:
            assert word == "not larger"
            assert other.left.weights >= one.left.weights
        else:
            assert (one.verdict, word) == (TOO_MUCH, "not smaller")
            assert other.left.weights <= one.left.weights


def test_a_network_is_trained_once_in_the_most_welcome_precision_that_fits():
    def bytes_of(one):
        return {"flash_bytes": float(one.weight_bits * one.hiddens[0] // 8)}

    made = [
        (
            Candidate(
                hiddens=(size,),
                granularity="weight",
                sparsity=0.0,
                precision=precision,
                weight_bits=bits,
            ),
            Left(size, size),
        )
        for size in (100, 50)
        for precision, bits in (("float32", 32), ("int8", 8))
    ]
    found = assess(made, Budgets({"flash": 250.0}), bytes_of)
    assert [one.candidate.name for one in found.feasible] == ["100-dense-int8", "50-dense"]


def test_what_begins_with_the_reference_s_weights_is_tried_before_larger_ones():
    kept, left = candidate("neuron", 50)
    made = [candidate("weight", 400), (replace(kept, from_dense=True), left)]
    found = assess(made, Budgets({"flash": 1e6}), Meter())
    assert [one.candidate.hiddens for one in found.feasible] == [(50,), (400,)]


@pytest.mark.parametrize(("median", "verdict"), [(9.0, PRESUMED), (25.0, TOO_MUCH)])
def test_slow_actions_on_a_busy_machine_rule_nothing_out_whose_median_would_do(median, verdict):
    def times(one):
        return {"p50_us": median, "p99_us": 40.0}

    found = assess(
        [candidate("weight", 10), candidate("weight", 20)], Budgets({"p99": 20.0}), times
    )
    assert {one.verdict for one in found.assessments} == {verdict}
    assert "p99 40 µs of 20 µs" in "".join(one.reason for one in found.assessments)
