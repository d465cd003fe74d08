from rayprune.tracking.report.fit_page import render_fit
from tests.doubles.made_up.fit import made_up_fit


def test_a_fits_page_has_its_budgets_and_all_its_candidates():
    page = render_fit(made_up_fit(), {})
    assert "<h1>Met and certified: pole on cortex-m4</h1>" in page
    assert "<td class=num>16,384 B</td><td class=num>9,012 B</td><td class=num>55 %</td>" in page
    assert "8x8-&lt;dense&gt;" in page
    assert "8x8-<dense>" not in page
    assert 'data-chart="evidence"' in page
    # A wave ends together, though the first of it was good; the last was never begun.
    assert "<td class=prose>not judged</td>" in page
    assert "<td class=prose>not trained</td>" in page


def test_the_page_of_one_that_failed_shows_what_the_nearest_take():
    page = render_fit(made_up_fit(met=False), {})
    assert "<h1>Not met: pole on cortex-m4</h1>" in page
    assert "Of the nearest candidates" in page
    assert 'data-chart="evidence"' not in page
