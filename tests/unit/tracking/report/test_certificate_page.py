"""A certificate's page: the verdict comes first, and both questions are answered."""

from rayprune.tracking.report.certificate_page import render_certificate
from tests.doubles.made_up.certificate import made_up_certificate, made_up_pairs


def test_the_verdict_is_the_heading_and_both_questions_have_a_row():
    text = render_certificate(made_up_certificate(), made_up_pairs())
    assert "<h1>Non-inferior: pruned against dense on CartPole-v1</h1>" in text
    rows = text[text.index("<tbody>") : text.index("</tbody>")].split("<tr>")[1:]
    assert ["mean return" in rows[0], "mean of the worst episodes" in rows[1]] == [True, True]
    assert ">3.1 %<" in rows[0]
    assert ">none<" in rows[1]
    assert 'data-chart="evidence"' in text
    assert '"diverged_at": 16' in text


def test_both_policies_are_named_by_hash_version_and_date():
    text = render_certificate(made_up_certificate(), made_up_pairs())
    table = text[text.index("Who was compared") :]
    assert f'<code title="{32 * "ab"}">{8 * "ab"}…</code>' in table
    assert "<td>rayprune 0.1.0, ray 2.60.0</td><td>2026-11-28 09:00 UTC</td>" in table
    assert "begun 2026-11-29 14:22 UTC" in table


def test_continuous_actions_have_no_tile_of_agreement():
    close = {"agreement": None, "action_difference": 0.02, "states": 10}
    text = render_certificate(made_up_certificate(closeness=close), made_up_pairs())
    assert "Same actions" not in text


def test_policies_that_never_part_have_no_step_at_which_they_do():
    parted = {"diverged": 0.0, "first": None, "median": None}
    text = render_certificate(made_up_certificate(divergence=parted), made_up_pairs())
    assert "half of them by step" not in text


def test_an_environments_name_cannot_break_out():
    text = render_certificate(made_up_certificate(env="</script><b>"), made_up_pairs())
    assert "<b></h1>" not in text
    assert text.count("</script>") == 2
