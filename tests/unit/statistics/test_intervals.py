"""Gaps between paired series of returns."""

import numpy as np
import pytest
from scipy import stats

from rayprune.statistics.intervals import gap_difference, paired_gap


def test_a_constant_loss_has_an_interval_of_no_width_however_much_episodes_differ():
    before = [10.0, 200.0, -50.0, 80.0]
    gap = paired_gap(before, [value - 3.0 for value in before])
    assert gap["iqm"] == pytest.approx(3.0)
    assert gap["ci95"] == pytest.approx([3.0, 3.0])


def test_the_gap_is_the_difference_of_the_iqms():
    assert paired_gap([0.0, 10.0, 20.0, 90.0], [0.0, 4.0, 6.0, 7.0])["iqm"] == 10.0


def test_the_interval_is_scipys_paired_bootstrap():
    chance = np.random.default_rng(1)
    before = chance.normal(100, 30, 40)
    after = before - chance.normal(10, 5, 40)

    def difference(x, y, axis):
        return stats.trim_mean(x, 0.25, axis=axis) - stats.trim_mean(y, 0.25, axis=axis)

    expected = stats.bootstrap(
        (before, after),
        difference,
        paired=True,
        vectorized=True,
        n_resamples=20_000,
        method="percentile",
        rng=np.random.default_rng(2),
    ).confidence_interval
    assert paired_gap(before, after)["ci95"] == pytest.approx(list(expected), abs=0.6)


def test_a_difference_of_gaps_is_paired_over_all_four_series():
    before, other = np.arange(20.0), np.arange(20.0) ** 2
    found = gap_difference((before, before - 5.0), (other, other - 2.0))
    assert found["iqm"] == pytest.approx(3.0)
    assert found["ci95"] == pytest.approx([3.0, 3.0])
