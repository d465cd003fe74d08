"""The leaderboard's rows as W&B runs, read back, and its report; no test leaves this machine."""

from __future__ import annotations

import json
from typing import Any

import pytest

from benchmarks.leaderboard import tables, wandb_report
from benchmarks.leaderboard.__main__ import main
from benchmarks.leaderboard.cells import cell_of, cells
from rayprune.tracking.record import to_json
from tests.doubles import wandb_server
from tests.system.test_leaderboard import row
from tests.wandb_files import history, run_id, summary, wandb_files, wandb_records

pytest.importorskip("wandb_workspaces")
CURVE = [[1000, 50.0], [2000, 150.0]]


@pytest.fixture(autouse=True)
def fresh_wandb(monkeypatch, tmp_path):
    import wandb

    wandb.teardown()
    wandb_server.without_account(monkeypatch, tmp_path)
    yield
    wandb.teardown()


@pytest.fixture
def known() -> list[dict[str, Any]]:
    wanted = cells(["hopper"], ["dense", "cubic"], [0.9], range(2))
    scores = {"random": 0.0, "dense": 200.0, "cubic": 180.0}
    return [
        {**row(cell, scores[cell.arm] + cell.seed), "env_steps": 2000, "curve": CURVE}
        if cell.arm != "random"
        else row(cell, 0.0)
        for cell in wanted
    ]


def report(known, place, *options) -> int:
    results = place / "results"
    results.mkdir(exist_ok=True)
    (results / "hopper.jsonl").write_text("".join(to_json(row) + "\n" for row in known))
    given = ["--results", str(results), "--runs", str(place / "wb"), *options]
    return main(["report", *given])


def test_each_row_is_a_run_with_its_curve_and_its_figures(known, tmp_path, capsys):
    assert report(known, tmp_path) == 0
    for each in known:
        (file,) = wandb_files(tmp_path / "wb" / cell_of(each).name)
        (run,) = [r.run for r in wandb_records(file) if r.WhichOneof("record_type") == "run"]
        assert (run.run_group, run.project, run.job_type) == (
            "hopper",
            wandb_report.PROJECT,
            "leaderboard",
        )
        config = {update.key: json.loads(update.value_json) for update in run.config.update}
        assert {key: config[key] for key in cell_of(each).key} == cell_of(each).key
        assert config["policy"] == wandb_report.policy(cell_of(each))
        found = [(r["env_steps"], r["validation/mean"]) for r in history(file)]
        assert found == [tuple(point) for point in each.get("curve", ())]
        assert summary(file)[wandb_report.SCORE] == each["score"]["mean"]
        if each["arm"] != "random":
            assert summary(file)[wandb_report.FLASH] == 4096
            assert summary(file)[wandb_report.SPARSITY] == each["sparsity"]
    told = capsys.readouterr().out
    assert "5 runs in" in told
    assert f"wandb sync {tmp_path / 'wb'}/*/*/wandb/offline-run-*" in told


def test_a_row_that_has_a_run_is_left_and_one_that_was_killed_is_written_anew(known, tmp_path):
    report(known[:2], tmp_path)
    first, second = (tmp_path / "wb" / cell_of(each).name for each in known[:2])
    before = [run_id(*wandb_files(folder)) for folder in (first, second)]
    (second / wandb_report.ROW).unlink()
    assert report(known[:3], tmp_path) == 0
    assert run_id(*wandb_files(first)) == before[0]
    assert run_id(*wandb_files(second)) != before[1]
    assert len(wandb_files(tmp_path / "wb" / cell_of(known[2]).name)) == 1


def test_without_an_account_the_reports_specification_is_written(known, tmp_path):
    report(known, tmp_path)
    check_spec(json.loads((tmp_path / "wb" / wandb_report.SPEC).read_text()), known)


def check_spec(spec, known):
    (grid,) = [block for block in spec["blocks"] if block["type"] == "panel-grid"]
    (runset,) = grid["metadata"]["runSets"]
    (rule,) = runset["filters"]["filters"]
    assert (rule["key"]["name"], rule["op"], rule["value"]) == ("group", "=", "hopper")
    flash, sparsity, curve, bars, _ = (
        panel["config"] for panel in grid["metadata"]["panelBankSectionConfig"]["panels"]
    )
    assert (flash["xAxis"], flash["yAxis"]) == (
        "summary:targets/cortex-m4/flash_bytes",
        "summary:score/mean",
    )
    assert sparsity["xAxis"] == "summary:actor/sparsity"
    assert (curve["xAxis"], curve["metrics"]) == ("env_steps", ["validation/mean"])
    assert bars["metrics"] == ["score/mean"]
    assert curve["groupBy"] == bars["groupBy"] == "policy.value"
    told = json.dumps(spec["blocks"])
    lines = [line for line in tables.page(known) if line.startswith(("| cubic", "| dense"))]
    assert len(lines) > 4
    assert all(json.dumps(line)[1:-1] in told for line in lines)


def test_with_a_key_runs_and_report_reach_the_server(known, tmp_path, monkeypatch, capsys):
    with wandb_server.StandIn() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef" * 3)
        assert report(known[:3], tmp_path, "--project", "rayprune") == 0
        assert f"{server.url}/someone/rayprune/reports/Leaderboard--" in capsys.readouterr().out
        (sent,) = [given for name, given in server.asked if name == "upsertView"]
        begun = [given for name, given in server.asked if name == "UpsertBucket"]
        assert {given["displayName"] for given in begun if given.get("displayName")} == {
            cell_of(each).name for each in known[:3]
        }
        curves = [
            [(line["env_steps"], line["validation/mean"]) for _, line in sorted(lines.items())]
            for lines in server.history.values()
        ]
    assert [tuple(point) for point in CURVE] in curves
    assert json.loads(sent["spec"])["blocks"]
    assert not (tmp_path / "wb" / wandb_report.SPEC).exists()


def test_a_server_that_refuses_is_told_of_once_and_all_is_kept(
    known, tmp_path, monkeypatch, capsys
):
    with wandb_server.StandIn() as server:
        server.refuse = True
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef" * 3)
        assert report(known[:3], tmp_path) == 0
    told = capsys.readouterr()
    assert told.err.count("goes on offline") == 1
    assert "Not published, because W&B did not take it" in told.out
    assert all(wandb_files(tmp_path / "wb" / cell_of(each).name) for each in known[:3])


def test_no_rows_and_no_package_are_told(known, tmp_path, monkeypatch, capsys):
    assert report([], tmp_path) == 1
    assert "There are no rows in" in capsys.readouterr().err
    from importlib.metadata import PackageNotFoundError

    from rayprune.tracking.report import wandb_report as base

    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(base, "distribution", missing)
    assert report(known[:1], tmp_path) == 1
    assert "pip install 'rayprune[wandb]'" in capsys.readouterr().err
    assert not (tmp_path / "wb" / "hopper").exists()
