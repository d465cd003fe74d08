"""``rayprune report``."""

import json

import pytest

from tests.doubles.made_up.sweep import write_made_up_run, write_made_up_sweep


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    return write_made_up_sweep(tmp_path_factory.mktemp("sweeps") / "sweep")


def test_report_writes_the_page_and_says_where(rayprune, sweep, tmp_path):
    page = tmp_path / "page.html"
    answer = rayprune("report", sweep, write_made_up_run(tmp_path / "run"), "--out", page)
    assert (answer.code, answer.stdout) == (0, "")
    assert str(page) in answer.stderr
    assert page.read_text().startswith("<!doctype html>")


def test_report_tells_programs_what_is_in_it(rayprune, sweep):
    told = json.loads(rayprune("report", sweep, "--json").stdout)
    assert told["report"] == str(sweep / "report.html")
    assert (told["runs"], told["sweeps"]) == (8, 1)
    assert all(point["sparsity"] > 0 for point in told["front"])


def test_of_a_fit_all_that_was_trained_is_compared_and_its_own_page_stays(rayprune, tmp_path):
    fit = tmp_path / "fit"
    write_made_up_sweep(fit / "waves" / "01")
    write_made_up_run(fit / "dense")
    (fit / "fit.yaml").write_text("name: x")
    (fit / "report.html").write_text("with the budgets")
    told = json.loads(rayprune("report", fit, "--json").stdout)
    assert (told["runs"], told["sweeps"]) == (9, 1)
    assert told["report"] == str(fit / "comparison.html")
    assert (fit / "report.html").read_text() == "with the budgets"


def test_a_fit_that_has_trained_nothing_says_how_to_go_on(rayprune, tmp_path):
    (tmp_path / "fit.yaml").write_text("name: x")
    answer = rayprune("report", tmp_path)
    assert answer.code == 2
    assert "has trained nothing yet. Go on with it: rayprune fit CONFIG" in answer.stderr


def test_report_builds_a_wandb_report_when_asked(rayprune, sweep, tmp_path, monkeypatch):
    from rayprune.tracking.report import wandb_report

    answer = {"url": None, "spec": str(tmp_path / "page.wandb.json"), "hint": "Do this."}
    calls = []
    monkeypatch.setattr(
        wandb_report, "write_wandb_report", lambda *given: calls.append(given) or answer
    )
    page = tmp_path / "page.html"
    assert "Do this." in rayprune("report", sweep, "--out", page, "--wandb").stderr
    assert calls == [([sweep], tmp_path / "page.wandb.json")]
    told = json.loads(rayprune("report", sweep, "--out", page, "--wandb", "--json").stdout)
    assert told["wandb"] == answer


def test_a_directory_that_is_no_run_is_wrong_input(rayprune, tmp_path):
    answer = rayprune("report", tmp_path, "--out", tmp_path / "page.html")
    assert answer.code == 2
    assert f"{str(tmp_path)!r} is neither a run's directory" in answer.stderr
    assert not any(tmp_path.iterdir())


def test_a_report_of_nothing_is_wrong_usage(rayprune):
    assert rayprune("report").code == 2


def test_the_help_has_an_example(rayprune):
    answer = rayprune("report", "--help")
    assert answer.code == 0
    assert "Example: rayprune report" in answer.stdout


def test_a_report_of_a_bucket_is_written_here(rayprune, bucket, tmp_path, monkeypatch):
    run = write_made_up_run(tmp_path / "run")
    for path in run.rglob("*"):
        if path.is_file():
            key = f"runs/{path.relative_to(run).as_posix()}"
            bucket.client.put_object(Bucket="bucket", Key=key, Body=path.read_bytes())
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    told = json.loads(rayprune("report", bucket.url("runs"), "--json").stdout)
    assert (told["report"], told["runs"]) == ("report.html", 1)
    assert (tmp_path / "here" / "report.html").is_file()
    answer = rayprune("report", bucket.url("nothing"))
    assert answer.code == 2
    assert "There is nothing at 's3://bucket/nothing'" in answer.stderr
