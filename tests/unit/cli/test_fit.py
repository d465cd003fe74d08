"""``rayprune fit``: what it prints and refuses without training anything."""

import io

import pytest
from rich.console import Console

from rayprune.cli.printing.fit_tables import fit_lines, plan_table, uses_table
from tests.doubles.made_up.fit import made_up_fit


def printed(*parts):
    stream = io.StringIO()
    console = Console(file=stream, width=160)
    for part in parts:
        console.print(part, markup=False)
    return stream.getvalue()


def test_a_plan_runs_nothing_that_could_be_resumed(rayprune, config):
    answer = rayprune("fit", config, "--plan", "--resume")
    assert answer.code == 2
    assert "`--plan` runs nothing that `--resume` could go on with" in answer.stderr


def test_a_file_that_is_not_there_is_refused_before_ray_is_imported(rayprune, tmp_path):
    assert rayprune("fit", tmp_path / "no.yaml").code == 2


def test_a_url_is_no_place_for_a_fit(rayprune, config):
    answer = rayprune("fit", config, "--out", "s3://bucket/fit")
    assert answer.code == 2
    assert "`--out` of `rayprune fit` must be a path, but is 's3://bucket/fit'" in answer.stderr


@pytest.mark.parametrize("met", [True, False])
def test_budgets_are_told_with_what_is_used_of_them(met, tmp_path):
    result = made_up_fit(met=met)
    if not met:
        del result["artifact"]
    told = printed(uses_table(result), *fit_lines(result, tmp_path))
    assert ("Met and certified" in told) is met
    assert "16,384 B" in told
    assert "9,012 B" in told
    assert "55 %" in told
    assert ("artifact/policy.c" in told) is met


def test_a_plan_tells_figures_where_there_are_some_and_reasons_where_not():
    result = made_up_fit()
    one, other = result["plan"][:2]
    other.update(figures=None, verdict="presumably fits", reason="not larger than 64x64-weight-50")
    told = printed(plan_table({**result, "candidates": [one, other]}))
    assert "Candidates for cortex-m4: flash 16,384 B" in told
    assert "9,012 B  fits" in told
    assert "presumably fits (not larger than 64x64-weight-50)" in told
