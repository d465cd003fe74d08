"""A bench's page: every figure has a row, every place a chart."""

from rayprune.tracking.report.bench_page import render_bench
from tests.doubles.made_up.bench import made_up_bench


def test_every_policy_in_every_runtime_has_a_row_with_both_ratios():
    text = render_bench(made_up_bench())
    assert text.count('data-chart="latency"') == 1
    rows = text[text.index("<tbody>") : text.index("</tbody>")].split("<tr>")[1:]
    assert len(rows) == 5
    assert ">3.00<" in rows[-1]
    assert ">15.00<" in rows[-1]
    assert ">34,000<" in rows[-1]
    assert "there is no C compiler" in text


def test_without_a_deadline_nothing_missed_it():
    text = render_bench(made_up_bench(deadline_ms=None))
    assert "2.0 %" not in text
