"""The W&B Report: its specification without an account, and saving to a loopback stand-in."""

import json
from importlib.metadata import PackageNotFoundError

import pytest

from rayprune.errors import InputError
from rayprune.tracking.report import report_data
from tests.doubles.made_up.sweep import write_made_up_sweep

pytest.importorskip("wandb_workspaces")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    return write_made_up_sweep(tmp_path_factory.mktemp("sweeps") / "sweep")


@pytest.fixture(autouse=True)
def fresh_wandb():
    import wandb

    wandb.teardown()
    yield
    wandb.teardown()


def test_without_an_account_the_specification_is_written(sweep, tmp_path):
    from rayprune.tracking.report.wandb_report import write_wandb_report

    answer = write_wandb_report([sweep], tmp_path / "report.wandb.json")
    assert answer["url"] is None
    assert answer["spec"] == str(tmp_path / "report.wandb.json")
    assert "there is no key for W&B" in answer["hint"]
    assert "wandb login" in answer["hint"]
    check_spec(json.loads((tmp_path / "report.wandb.json").read_text()))


def check_spec(spec):
    (grid,) = [block for block in spec["blocks"] if block["type"] == "panel-grid"]
    (runset,) = grid["metadata"]["runSets"]
    (rule,) = runset["filters"]["filters"]
    assert (rule["key"]["name"], rule["op"], rule["value"]) == ("group", "=", "made_up")
    panels = grid["metadata"]["panelBankSectionConfig"]["panels"]
    assert [panel["viewType"] for panel in panels] == [
        "Scatter Plot",
        "Scatter Plot",
        "Run History Line Plot",
        "Run History Line Plot",
        "Parallel Coordinates Plot",
        "Run Comparer",
    ]
    scatter, lines, chosen = panels[0]["config"], panels[2]["config"], panels[4]["config"]
    assert scatter["xAxis"] == "summary:sparsity/prunable"
    assert scatter["yAxis"] == "summary:returns/validation/iqm"
    assert lines["xAxis"] == "env_steps"
    assert lines["metrics"] == ["return_mean", "validation/iqm"]
    assert [column["accessor"] for column in chosen["columns"]] == [
        "config:pruning.value.sparsity",
        "config:pruning.value.criterion",
        "config:rllib.value.training.lr",
        "summary:sparsity/prunable",
        "summary:returns/validation/iqm",
    ]
    assert any("| run |" in json.dumps(block) for block in spec["blocks"])


def test_the_report_asks_for_names_that_the_tracker_writes():
    from rayprune.tracking.report import wandb_report
    from rayprune.tracking.tracker import flat_metrics

    returns = {"validation": {"iqm": 1.0}, "test": {"iqm": 1.0}}
    summary = flat_metrics({"sparsity": {"prunable": 0.9}, "returns": returns})[0]
    assert {wandb_report._SPARSITY, wandb_report._VALIDATION, wandb_report._TEST} == set(summary)


def test_saving_sends_the_specification_to_the_server(sweep, tmp_path, monkeypatch, stand_in):
    from rayprune.tracking.report.wandb_report import write_wandb_report

    monkeypatch.setenv("WANDB_BASE_URL", stand_in.url)
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef" * 3)
    answer = write_wandb_report([sweep], tmp_path / "report.wandb.json")
    assert answer["url"].startswith(f"{stand_in.url}/someone/rayprune/reports/made_up--")
    assert not (tmp_path / "report.wandb.json").exists()
    (sent,) = [variables for name, variables in stand_in.asked if name == "upsertView"]
    assert (sent["entityName"], sent["projectName"]) == ("someone", "rayprune")
    check_spec(json.loads(sent["spec"]))


def test_a_server_that_refuses_leaves_the_specification(sweep, tmp_path, monkeypatch, stand_in):
    from rayprune.tracking.report.wandb_report import write_wandb_report

    stand_in.refuse = True
    monkeypatch.setenv("WANDB_BASE_URL", stand_in.url)
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef" * 3)
    answer = write_wandb_report([sweep], tmp_path / "report.wandb.json")
    assert answer["url"] is None
    assert "W&B did not take it" in answer["hint"]
    assert (tmp_path / "report.wandb.json").exists()


def test_a_missing_package_says_what_to_install(sweep, tmp_path, monkeypatch):
    from rayprune.tracking.report import wandb_report

    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(wandb_report, "distribution", missing)
    with pytest.raises(InputError, match=r"pip install 'rayprune\[wandb\]'"):
        wandb_report.build(report_data([sweep]))
