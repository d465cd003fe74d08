"""Evidence by betting: worked by hand, and fair by enumeration of everything that can happen."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayprune.statistics.betting import FRACTIONS, WEIGHTS, Contrast, MeanEvidence, Wealth
from rayprune.statistics.cvar import TailEvidence, cvar, shortfall


def test_the_first_money_is_one_and_half_of_it_is_the_boldests():
    assert WEIGHTS.sum() == pytest.approx(1.0)
    assert WEIGHTS[0] > 0.5
    assert FRACTIONS[0] == 1.0


def test_a_bet_gains_its_stake_times_the_value_over_the_worst():
    wealth = Wealth()
    wealth.bet(5.0, worst=-10.0)
    # Every gambler makes 1 + f * 0.5 of their share.
    assert math.exp(wealth.log()) == pytest.approx(float(WEIGHTS @ (1 + 0.5 * FRACTIONS)))
    wealth.bet(-10.0, worst=-10.0)
    left = WEIGHTS @ ((1 + 0.5 * FRACTIONS) * (1 - FRACTIONS))
    assert math.exp(wealth.log()) == pytest.approx(float(left))


@pytest.mark.parametrize("chance", [0.05, 0.3, 0.5])
def test_against_a_mean_of_zero_nothing_is_won_on_average_whatever_happens(chance):
    # -1 with this chance, else just enough for a mean of zero; all 2**8 histories.
    win = chance / (1 - chance)
    average = 0.0
    for history in itertools.product([-1.0, win], repeat=8):
        wealth = Wealth()
        for value in history:
            wealth.bet(value, worst=-1.0)
        lost = history.count(-1.0)
        average += chance**lost * (1 - chance) ** (8 - lost) * math.exp(wealth.log())
    assert average == pytest.approx(1.0)


def test_equal_returns_are_shown_nearly_as_soon_as_anything_could_show_them():
    wealth, pairs = Wealth(), 0
    while wealth.log() < math.log(20):
        wealth.bet(25.0, worst=-475.0)
        pairs += 1
    # A policy that falls to 0 in 5 % of episodes shows no fall in 58 with a chance above 5 %.
    assert math.ceil(math.log(0.05) / math.log(0.95)) == 59 <= pairs <= 70


def test_where_nothing_bad_is_possible_one_pair_decides():
    evidence = MeanEvidence(Contrast(constant=1.0), 0.0, 1.0)
    evidence.add(0.0, 1.0)
    assert evidence.log() > math.log(1000)


def test_values_of_zero_leave_the_wealth_as_it_is():
    wealth = Wealth()
    for _ in range(1000):
        wealth.bet(0.0, worst=-1.0)
    assert wealth.log() == pytest.approx(0.0)


@given(
    st.lists(st.integers(-50, 50), min_size=1, max_size=30),
    st.floats(0.05, 1.0),
)
def test_the_cvar_is_the_largest_shortfall_over_all_quantiles(returns, tail):
    values = np.array(returns, dtype=float)
    largest = max(float(shortfall(values, q, tail).mean()) for q in values)
    assert cvar(returns, tail) == pytest.approx(largest, abs=1e-9)


def test_the_cvar_of_everything_is_the_mean():
    assert cvar([3.0, 1.0, 8.0], 1.0) == 4.0


LOW, HIGH, TAIL = 0.0, 10.0, 0.5


def average(better, allowance, outcomes, chances, pairs=3):
    """The evidence after some pairs, on average over all histories."""
    total = 0.0
    for history in itertools.product(range(len(outcomes)), repeat=pairs):
        evidence = TailEvidence(allowance, better, TAIL, LOW, HIGH)
        for i in history:
            evidence.add(*outcomes[i])
        total += math.prod(chances[i] for i in history) * math.exp(evidence.log())
    return total


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 10), st.integers(0, 10), st.integers(1, 5)),
        min_size=2,
        max_size=3,
    ),
    st.sampled_from(["pruned", "dense"]),
)
def test_evidence_for_a_tail_that_is_not_better_wins_nothing_on_average(rows, better):
    outcomes = [(float(pruned), float(dense)) for pruned, dense, _ in rows]
    chances = np.array([weight for *_, weight in rows], dtype=float)
    chances /= chances.sum()
    tails = {
        name: max(
            float(chances @ shortfall(np.array([pair[i] for pair in outcomes]), q, TAIL))
            for q in np.linspace(LOW, HIGH, 41)
        )
        for i, name in enumerate(("pruned", "dense"))
    }
    gap = tails["pruned"] - tails["dense"]
    # The allowance that makes the claimed difference exactly zero: the border.
    allowance = Contrast(constant=-gap if better == "pruned" else gap)
    assert average(better, allowance, outcomes, chances) <= 1.0 + 1e-9


def test_a_tail_that_is_better_by_far_is_shown():
    evidence = TailEvidence(Contrast(constant=0.0), "pruned", 0.25, 0.0, 10.0)
    for n in range(100):
        evidence.add(9.0 + n % 2, 1.0 + n % 2)
    assert evidence.log() > math.log(20)


def test_false_certification_stays_below_the_error_on_a_ceiling_a_t_test_fails_on():
    """A small version of benchmarks/certify.py: 500 policies that lose exactly the margin."""
    random, most = np.random.default_rng(0), 150
    pruned = np.where(random.random((500, most)) < 0.05, 0.0, 500.0)
    claim = Contrast(pruned=1.0, dense=-0.95)
    wealth, crossed = Wealth((500,)), np.zeros(500, dtype=bool)
    for n in range(most):
        wealth.bet(claim.at(pruned[:, n], 500.0), claim.least(0.0, 500.0))
        crossed |= wealth.log() >= math.log(20)
    assert 0.01 < crossed.mean() <= 0.06  # five replications of 500 may be by chance
    # The t test certifies whoever has not fallen among the first 20.
    assert ((pruned[:, :20] == 500.0).all(axis=1)).mean() > 0.3
