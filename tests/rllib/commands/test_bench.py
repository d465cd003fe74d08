"""Benching checkpoints and files: who is compared with whom, and what a run's summary gets."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from rayprune.config import to_yaml
from rayprune.deploy.export.export import ExportRequest
from rayprune.errors import ConfigError, InputError
from rayprune.rllib.commands.bench import BenchOptions, bench
from rayprune.rllib.commands.bench_record import latency_of, record_latency
from rayprune.rllib.commands.export import export_checkpoint
from rayprune.rllib.evaluation.evaluator import Evaluator
from rayprune.rllib.experiment.algorithm_config import settings_of
from rayprune.rllib.export import latency as policy_latency
from rayprune.tracking.wandb import WandbTracker
from tests.doubles.made_up.bench import made_up_bench
from tests.rllib import configs, experiments
from tests.wandb_files import run_id, summary, wandb_files

pytestmark = pytest.mark.usefixtures("ray_session")

QUICK = BenchOptions(batches=(1, 4), threads=(1,), rounds=5, formats=("torch",), memory=False)


class Reporter:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def stage(self, text: str) -> None:
        self.told.append(text)

    def row(self, text: str) -> None:
        self.told.append(text)


def run(
    *paths: Path, options: BenchOptions = QUICK, reporter: Reporter | None = None
) -> dict[str, Any]:
    return bench(list(paths), options, reporter or Reporter())


def test_first_figures_are_told_before_anything_is_exported(checkpoint: Path) -> None:
    reporter = Reporter()
    run(checkpoint, reporter=reporter)
    kinds = [
        "first" if "a first look" in text else text.split()[0] if "median" not in text else "row"
        for text in reporter.told
    ]
    assert kinds[:4] == ["exports", "first", "plays", "first"]
    assert "forward_inference, batch 1, 1 thread(s): median" in reporter.told[1]
    # A row a policy, runtime and batch size, as they are measured.
    assert kinds.count("row") == 10
    assert kinds.index("row") < len(kinds) - 5


@pytest.fixture(scope="module")
def checkpoint(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A policy half of whose first hidden units are dead."""
    path = tmp_path_factory.mktemp("bench") / "checkpoint"
    algorithm = configs.ppo().build_algo()
    learner: Any = algorithm.learner_group._learner  # type: ignore[union-attr]
    first = learner.module["default_policy"].encoder.actor_encoder.net.mlp[0]
    with torch.no_grad():
        first.weight[:16] = 0
    algorithm.save_to_path(str(path))
    algorithm.stop()
    return path


@pytest.fixture(scope="module")
def result(checkpoint: Path) -> dict[str, Any]:
    return run(checkpoint)


def test_each_policy_is_timed_in_each_runtime_at_each_batch_size(result: dict[str, Any]) -> None:
    kinds = [("dense", "forward_inference"), ("dense", "eager"), ("dense", "torch")]
    kinds += [("pruned", "eager"), ("pruned", "torch")]
    found = [(row["batch"], row["policy"], row["runtime"]) for row in result["rows"]]
    assert found == [(batch, *kind) for batch in (1, 4) for kind in kinds]
    assert all(row["median_us"] > 0 and row["calls"] >= 25 for row in result["rows"])
    assert [control["batch"] for control in result["controls"]] == [1, 4]


def test_pruned_is_compared_with_dense_in_its_own_runtime_and_all_with_rllib(
    result: dict[str, Any],
) -> None:
    for row in result["rows"]:
        same, rllib = (row["speed_up"][key] for key in ("same_runtime", "forward_inference"))
        assert (same is None) == (row["policy"] == "dense")
        assert (rllib is None) == (row["runtime"] == "forward_inference")
    rows = {(r["policy"], r["runtime"]): r for r in result["rows"] if r["batch"] == 1}
    ratio = rows["pruned", "torch"]["speed_up"]["same_runtime"]["ratio"]
    medians = rows["dense", "torch"]["median_us"] / rows["pruned", "torch"]["median_us"]
    assert ratio == pytest.approx(medians, rel=0.5)


def test_the_dead_units_are_gone_and_the_file_is_smaller(result: dict[str, Any]) -> None:
    (target,) = result["targets"]
    # 4-32-32-2, and 16 of the first 32 are dead.
    dense = 5 * 32 + 33 * 32 + 33 * 2
    assert target["parameters"] == {"dense": dense, "pruned": dense - 16 * (5 + 32)}
    sizes = {row["policy"]: row["file_bytes"] for row in result["rows"] if row["file_bytes"]}
    assert sizes["pruned"] < sizes["dense"]


def test_exported_files_are_compared_with_the_first_of_their_format(
    checkpoint: Path, tmp_path: Path
) -> None:
    files = [tmp_path / name for name in ("first.pt2", "second.pt2")]
    for file in files:
        export_checkpoint(checkpoint, ExportRequest(file, "torch", episodes=1))
    found = run(*files)
    assert [row["policy"] for row in found["rows"] if row["batch"] == 1] == [
        "first.pt2",
        "second.pt2",
    ]
    first, second = (row["speed_up"] for row in found["rows"] if row["batch"] == 1)
    assert first == {"same_runtime": None, "forward_inference": None}
    assert second["same_runtime"]["ratio"] == pytest.approx(1.0, rel=0.5)
    assert second["forward_inference"] is None
    with pytest.raises(InputError, match="twice"):
        run(files[0], files[0])


@pytest.mark.slow  # a process for each of the files
def test_on_one_core_one_thread_and_all_are_the_same(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rayprune.rllib.commands.bench.cores", lambda: 1)
    found = run(checkpoint, options=replace(QUICK, batches=(1,), threads=(1, 0)))
    assert [control["threads"] for control in found["controls"]] == [1]


def test_memory_is_measured_in_a_process_of_its_own(checkpoint: Path) -> None:
    options = BenchOptions(batches=(1, 64), threads=(1,), rounds=5, formats=("onnx",))
    rows = [r for r in run(checkpoint, options=options)["rows"] if r["runtime"] == "onnx"]
    held = {(row["policy"], row["batch"]): row["peak_memory_bytes"] for row in rows}
    if None in held.values():
        pytest.skip("a process's peak can't be reset here")
    assert all(2**16 < size < 2**30 for size in held.values())
    assert held["dense", 64] >= held["dense", 1]


def test_a_runs_summary_gets_the_fastest_pruned_file(tmp_path: Path) -> None:
    made_up = made_up_bench()
    for row in made_up["rows"]:
        row["target"] = str(tmp_path)
    assert record_latency(tmp_path, made_up, print) is None  # no run, nothing to write to
    (tmp_path / "summary.json").write_text(json.dumps({"schema": 1, "latency": None}))
    (tmp_path / "learner_group").mkdir()
    latency = record_latency(tmp_path, made_up, print)
    held = json.loads((tmp_path / "summary.json").read_text())
    assert held == {"schema": 1, "latency": latency}
    assert latency is not None
    assert (latency["runtime"], latency["policy"], latency["median_us"]) == ("onnx", "pruned", 8.0)
    assert (latency["dense_us"], latency["forward_inference_us"]) == (24.0, 120.0)
    assert latency["speed_up"]["same_runtime"]["ratio"] == 3.0
    assert len(latency["rows"]) == 5


def test_a_runs_own_wandb_run_gets_the_figures_and_no_new_run_is_begun(tmp_path: Path) -> None:
    what = experiments.experiment(experiments.PPO, tracking={"wandb": "offline"})
    made_up = made_up_bench()
    for row in made_up["rows"]:
        row["target"] = str(tmp_path)
    (tmp_path / "learner_group").mkdir()
    (tmp_path / "summary.json").write_text(json.dumps({"schema": 1, "latency": None}))
    (tmp_path / "rayprune.yaml").write_text(to_yaml(what, {}))
    (tmp_path / "rayprune.json").write_text(json.dumps({"schema": 1}))
    record_latency(tmp_path, made_up, print)
    assert not (tmp_path / "wandb").exists()
    names = {"name": "tiny-seed3", "group": "tiny", "tags": (), "tell": print}
    trained = WandbTracker(tmp_path, mode="offline", project="p", **names)
    trained.start({"name": "tiny", "algorithm": "PPO"})
    trained.row({"env_steps": 400, "return_mean": 20.0})
    trained.finish({"schema": 1})
    time.sleep(1.1)  # W&B names a run's files by the second
    record_latency(tmp_path, made_up, print)
    first, last = wandb_files(tmp_path)
    assert run_id(first) == run_id(last)
    held = summary(last)
    assert (held["latency/median_us"], held["latency/dense_us"]) == (8.0, 24.0)
    assert held["latency/forward_inference_us"] == 120.0
    assert held["latency/speed_up/same_runtime/ratio"] == 3.0


def test_where_no_file_was_timed_there_is_no_latency_to_tell() -> None:
    made_up = made_up_bench()
    made_up["rows"] = made_up["rows"][:3]
    assert latency_of(made_up, "runs/a") is None
    assert latency_of(made_up, "runs/other") is None


def test_a_searchs_latency_is_timed_once_for_all_policies_of_the_same_widths(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluator = Evaluator(settings_of(checkpoint).config)
    evaluator.load_checkpoint(checkpoint)
    times = iter([11.0, 12.0])
    with monkeypatch.context() as patched:
        patched.setattr(policy_latency, "_timed", lambda *_: next(times))
        timed = partial(policy_latency.policy_latency, evaluator, 10_000, tmp_path)
        first = evaluator.module.encoder.actor_encoder.net.mlp[0]
        assert timed() == 11.0
        with torch.no_grad():
            first.weight[20:, 1] = 0  # single weights make no unit go
        assert timed() == 11.0
        with torch.no_grad():
            first.weight[20] = 0
        assert timed() == 12.0
        assert timed() == 12.0
        assert len(list(tmp_path.iterdir())) == 2
    other = policy_latency.policy_latency(evaluator, 10_000, tmp_path / "other")
    assert 0 < other < 1e5
    evaluator.close()


def test_all_faulty_options_are_told_at_once() -> None:
    options = BenchOptions(deadline_ms=0, batches=(0,), threads=(-1,), formats=("c++",))
    with pytest.raises(ConfigError) as told:
        run(Path("a"), options=options)
    text = str(told.value)
    for name in ("--deadline", "--batches", "--threads", "--formats"):
        assert name in text
