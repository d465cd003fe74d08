"""The verdict: what is shown, what is refuted, and what stays open."""

import itertools
import math

import numpy as np
import pytest

from rayprune.statistics.noninferiority import Criteria, Margin, NonInferiority, Question


def criteria(margin=0.05, tail_margin=0.1, low=0.0, high=500.0, share=True, **others):
    return Criteria(
        margin=Margin(size=margin, share=share),
        tail_margin=Margin(size=tail_margin, share=share),
        low=low,
        high=high,
        **others,
    )


def after(pruned, dense, **keywords):
    test = NonInferiority(criteria(**keywords))
    for pair in zip(pruned, dense, strict=True):
        test.add(*map(float, pair))
    return test


def test_two_policies_at_the_ceiling_are_certified_mean_first():
    test = after([500] * 140, [500] * 140)
    assert test.verdict == "non-inferior"
    assert test.questions["mean"].shown_at(0.05) == 68
    assert test.decided_at == test.questions["tail"].shown_at(0.05) == 137


def test_a_lower_confidence_needs_fewer_pairs():
    assert after([500] * 140, [500] * 140, confidence=0.8).decided_at < 100


def test_a_policy_that_never_earns_half_is_refuted_within_twenty():
    test = after([240] * 20, [500] * 20)
    assert test.verdict == "inferior"
    assert test.decided_at <= 20
    assert test.figures("mean")["refuted_at"] == test.decided_at


def test_rare_disasters_that_the_mean_bears_are_refuted_by_the_tail():
    pruned = ([500] * 9 + [0]) * 40
    test = after(pruned, [500] * 400, margin=0.3, tail_margin=0.1)
    assert test.questions["mean"].shown_at(0.05)
    assert test.verdict == "inferior"
    assert test.figures("tail") | {"p": None, "p_against": None} == {
        "dense": 500.0,
        "pruned": 300.0,
        "difference": -200.0,
        "margin": 50.0,
        "p": None,
        "p_against": None,
        "shown_at": None,
        "refuted_at": test.decided_at,
    }


def test_few_pairs_decide_nothing():
    test = after([500] * 20, [500] * 20)
    assert (test.verdict, test.decided_at) == ("undecided", None)
    assert 0.05 < test.figures("mean")["p"] < 1.0


def test_the_first_verdict_stands_whatever_comes_later():
    early = after([500] * 140, [500] * 140)
    late = after([500] * 140 + [0] * 200, [500] * 340)
    assert late.questions["mean"].refuted_at(0.025)
    assert (late.verdict, late.decided_at) == (early.verdict, early.decided_at)


def test_a_share_of_a_negative_return_allows_a_lower_one():
    # 5 % of -150 is 7.5: -155 is within, -165 is not.
    returns = {"low": -300.0, "high": 0.0, "margin": 0.05, "tail_margin": 0.2}
    assert after([-155] * 900, [-150] * 900, **returns).verdict == "non-inferior"
    assert after([-165] * 900, [-150] * 900, **returns).verdict == "inferior"


@pytest.mark.parametrize("level", [200.0, -200.0])
def test_a_range_of_both_signs_finds_out_which_one_counts(level):
    returns = {"low": -300.0, "high": 300.0, "margin": 0.2, "tail_margin": 0.3}
    assert after([level] * 300, [level] * 300, **returns).verdict == "non-inferior"
    assert after([level - 60] * 900, [level] * 900, **returns).verdict == "inferior"


def test_trying_both_signs_wins_nothing_on_average_where_neither_holds():
    # A dense mean of zero has no share: equal policies lie on the border of any.
    pairs = list(itertools.product([-1.0, 1.0], repeat=2))
    average = 0.0
    for history in itertools.product(pairs, repeat=3):
        question = Question(criteria(margin=0.3, low=-1.0, high=1.0), "mean")
        for pair in history:
            question.add(*pair)
        average += math.exp(question.log_for[-1]) / len(pairs) ** 3
    assert average == pytest.approx(1.0)


def test_an_absolute_margin_is_in_the_returns_units():
    test = after([480] * 400, [500] * 400, margin=30, tail_margin=60, share=False)
    assert test.verdict == "non-inferior"
    assert test.figures("mean")["margin"] == 30
    assert 20 < test.least_margin("mean") < 30


def test_the_least_margin_is_one_that_is_shown_and_a_smaller_one_is_not():
    random = np.random.default_rng(0)
    dense = random.uniform(300, 500, 200)
    pruned = dense - random.uniform(-20, 30, 200)
    least = {name: after(pruned, dense).least_margin(name) for name in ("mean", "tail")}
    for name, margin in least.items():
        shown = after(pruned, dense, margin=margin, tail_margin=margin)
        below = after(pruned, dense, margin=margin - 0.004, tail_margin=margin - 0.004)
        assert shown.questions[name].shown_at(0.05)
        assert not below.questions[name].shown_at(0.05)
        assert 0 < margin < 1


def test_a_single_pair_bounds_what_markovs_inequality_does_and_a_fall_nothing():
    # Whoever earns at most 5 % of the ceiling on average reaches it once in twenty times.
    assert after([500], [500]).least_margin("mean") == pytest.approx(0.95, abs=0.02)
    assert after([0], [500]).least_margin("mean") is None
