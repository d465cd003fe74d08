"""A scan's page: every layer is on it, and names can't break out of it."""

from rayprune.tracking.report.sensitivity_page import render_sensitivity
from tests.doubles.made_up.scan import made_up_scan


def test_the_page_has_a_section_for_what_layers_are_judged_by():
    text = render_sensitivity(made_up_scan())
    for name in ("ladder", "values", "suggested", "layers"):
        assert f'<section id="{name}"' in text
    assert "All suggested at once" in text
    only_policy = made_up_scan()
    only_policy["layers"] = [
        layer for layer in only_policy["layers"] if layer["measured_by"] == "return"
    ]
    assert '<section id="values"' not in render_sensitivity(only_policy)


def test_the_table_shows_each_rung_by_what_judges_the_layer():
    text = render_sensitivity(made_up_scan())
    row = text[text.index("<tr><td") :].split("</tr>")[0]
    assert row.count("<td") == 5 + 3
    assert ">490.0<" in row
    assert "> 1000 %" in text.replace("&gt;", ">")


def test_a_layers_name_cannot_break_out():
    scan = made_up_scan()
    scan["layers"][0]["name"] = "</script><b>"
    assert "<b></td>" not in render_sensitivity(scan)
