"""A run whose directory is in a bucket: trained, resumed and read from there."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from rayprune.deploy.export.export import ExportRequest
from rayprune.errors import CheckpointError, StorageError
from rayprune.rllib.checkpoints.files import fetch
from rayprune.rllib.commands.evaluate import evaluate_checkpoint
from rayprune.rllib.commands.export import export_checkpoint
from rayprune.storage.copies import fetched, shown
from rayprune.tracking.record import read_rows
from rayprune.tracking.remote import fetch_record
from rayprune.tracking.report import report_data
from tests.command_line import rayprune, start
from tests.doubles.buckets import Store
from tests.rllib import experiments
from tests.rllib.training.test_resume import CrashAt, CrashError, check_same_run

pytestmark = [pytest.mark.timeout(600)]

URL = "s3://bucket/runs/tiny"


def everything(paths: Any, copy: Path) -> set[str]:
    return set(paths)


def names(run: Path) -> set[str]:
    return {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def runs(
    ray_session: None, store_server: Store, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """Train a run here, and in the bucket the same, which crashes and is resumed."""
    what = experiments.experiment(experiments.PPO, stop={"env_steps": 800})
    whole = tmp_path_factory.mktemp("runs") / "tiny"
    experiments.train(what, whole)
    with pytest.raises(CrashError):
        experiments.train(what, Path(URL), reporter=CrashAt(610))
    assert "summary.json" not in store_server.tree("runs/tiny")
    return whole, experiments.train(what, Path(URL), resume=True)


def test_it_resumes_with_nothing_here_and_equals_the_one_on_disk(runs, store_server) -> None:
    whole, summary = runs
    copy = fetched(URL, everything)
    check_same_run(whole, copy)
    assert names(copy) == names(whole)
    assert store_server.tree("runs/tiny").keys() == names(whole)
    assert summary == json.loads((copy / "summary.json").read_text())


def test_evaluate_finds_its_returns_there(runs) -> None:
    _, summary = runs
    for source in (URL, f"{URL}/{summary['checkpoint']}"):
        found = evaluate_checkpoint(Path(source), episodes=None, seed=None, address=None)
        assert found["checkpoint"] == f"{URL}/{summary['checkpoint']}"
        assert found["returns"]["test"] == summary["returns"]["test"]


def test_export_and_report_read_it_there(runs, tmp_path) -> None:
    _, summary = runs
    out = tmp_path / "policy.pt2"
    certificate = export_checkpoint(Path(URL), ExportRequest(out, "torch", episodes=1))
    assert out.is_file()
    assert certificate["about"]["checkpoint"] == f"{URL}/{summary['checkpoint']}"
    (told,) = report_data([fetch_record(URL)])["runs"]
    assert told["label"] == "tiny"
    assert not (fetch_record(URL) / "checkpoints").exists()


def test_a_finished_run_there_is_not_trained_again(runs) -> None:
    _, summary = runs
    what = experiments.experiment(experiments.PPO, stop={"env_steps": 800})
    assert experiments.train(what, Path(URL), resume=True, reporter=CrashAt(0)) == summary


def test_another_run_begins_with_its_policy(runs) -> None:
    _, summary = runs
    what = experiments.experiment(
        experiments.PPO, start_from=URL, stop={"env_steps": 200}, pruning={"sparsity": 0.9}
    )
    again = experiments.train(what, Path("s3://bucket/runs/next"))
    assert again["sparsity"]["prunable"] >= summary["sparsity"]["prunable"] - 0.01


def test_its_place_is_named_where_it_can_not_be_used(runs) -> None:
    what = experiments.experiment(experiments.PPO)
    with pytest.raises(StorageError, match=r"'s3://bucket/runs/tiny' is not empty"):
        experiments.train(what, Path(URL))
    with pytest.raises(CheckpointError, match="is no checkpoint"):
        fetch(f"{URL}/checkpoints")
    with pytest.raises(StorageError, match="There is nothing at 's3://bucket/runs/other'"):
        fetch("s3://bucket/runs/other")


@pytest.mark.slow  # five drivers start Ray; test_copies.py kills writers in every run
@pytest.mark.parametrize("request_number", [80])
def test_a_run_killed_while_it_writes_there_equals_the_uninterrupted_one(
    bucket: Store, request_number: int, tmp_path: Path
) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(json.dumps(experiments.PPO))
    rayprune("train", config, "--out", tmp_path / "whole")
    bucket.gate.close_at(request_number)
    process = start("train", config, "--out", bucket.url("cut"))
    assert bucket.gate.reached.wait(120), process.communicate()[1][-3000:]
    process.send_signal(signal.SIGKILL)
    process.communicate()
    bucket.gate.open()
    rayprune("evaluate", bucket.url("cut"), "--episodes", 1)
    rayprune("train", config, "--out", bucket.url("cut"), "--resume")
    copy = fetched(bucket.url("cut"), everything)
    check_same_run(tmp_path / "whole", copy)
    assert bucket.tree("cut").keys() == names(tmp_path / "whole")
    assert len(read_rows(copy / "results.jsonl")) >= 6
    assert shown(copy) == bucket.url("cut")
