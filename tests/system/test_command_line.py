"""The command line as a user meets it: real processes, killed, interrupted, and fed nonsense."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from ray.rllib.algorithms.ppo import PPOConfig

from rayprune.tracking.record import read_rows
from tests.command_line import rayprune, rayprune_here, start
from tests.doubles.killing_env import KILLING
from tests.rllib import experiments

pytestmark = pytest.mark.timeout(600)

needs_mount = pytest.mark.skipif(
    os.name == "nt" or os.geteuid() != 0, reason="mounting a small or read-only disk needs root"
)


def write(path: Path, **changes: Any) -> Path:
    path.write_text(json.dumps({**experiments.PPO, **changes}))  # JSON is YAML too
    return path


def wait_for_checkpoint(process: subprocess.Popen[str], run: Path) -> None:
    deadline = time.monotonic() + 120
    while not list((run / "checkpoints").glob("[0-9]*")):
        assert process.poll() is None, process.communicate()[1][-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_killed_run_resumes_and_equals_the_uninterrupted_one(
    ray_address: str, tmp_path: Path
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    own = {"env": KILLING, "env_config": {"run": str(cut), "flag": str(tmp_path / "killed")}}
    config = write(tmp_path / "c.yaml", stop={"env_steps": 1600}, **own)
    process = start("train", config, "--out", cut, ray=ray_address)
    _, err = process.communicate(timeout=240)
    assert process.returncode == -signal.SIGKILL, err[-3000:]
    assert not (cut / "summary.json").exists()
    out, _ = rayprune_here("train", config, "--out", whole, "--json")
    again, _ = rayprune_here("train", config, "--out", cut, "--resume", "--json")
    first, second = json.loads(out), json.loads(again)
    for summary in (first, second):
        del summary["wall_time_s"]
    assert first == second
    steps = [row["env_steps"] for row in read_rows(cut / "results.jsonl")]
    assert steps == [row["env_steps"] for row in read_rows(whole / "results.jsonl")]


@pytest.mark.slow  # three drivers start Ray; the kill above is tried in every run
def test_a_kill_in_the_middle_of_writing_a_checkpoint_costs_only_that_one(tmp_path: Path) -> None:
    config = write(
        tmp_path / "c.yaml",
        stop={"env_steps": 30_000},
        evaluation={"every": 200, "episodes": 1},
    )
    run = tmp_path / "run"
    process = start("train", config, "--out", run)
    wait_for_checkpoint(process, run)
    while not (half := list((run / "checkpoints").glob(".*.tmp"))):
        assert process.poll() is None, process.communicate()[1][-3000:]
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert half[0].exists(), "the checkpoint was whole before the signal came: kill sooner"
    out, _ = rayprune(
        "train", config, "--out", run, "--resume", "--json", "--set", "stop.env_steps=3000"
    )
    assert json.loads(out)["env_steps"] >= 3000
    assert not half[0].exists()
    rayprune("evaluate", run)


def test_ctrl_c_writes_a_checkpoint_and_says_how_to_resume(
    ray_session: None, tmp_path: Path
) -> None:
    config = write(tmp_path / "c.yaml", stop={"env_steps": 500_000})
    # Relative, as people type it.
    run = os.path.relpath(tmp_path / "run")
    process = start("train", config, "--out", run)
    wait_for_checkpoint(process, tmp_path / "run")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "--resume" in err
    assert "Traceback" not in err
    rows = read_rows(tmp_path / "run" / "results.jsonl")
    newest = max(int(p.name) for p in (tmp_path / "run" / "checkpoints").glob("[0-9]*"))
    # Interrupted in its validation, the last iteration's row is still open.
    assert 0 <= newest - rows[-1]["env_steps"] < 210
    shorter = write(tmp_path / "d.yaml", stop={"env_steps": newest + 200})
    out, _ = rayprune_here("train", shorter, "--out", run, "--resume", "--json")
    assert json.loads(out)["env_steps"] >= newest + 200
    # No row is missing, and none is there twice: an iteration is 200 steps, or one more.
    steps = [row["env_steps"] for row in read_rows(tmp_path / "run" / "results.jsonl")]
    assert all(200 <= after - before < 210 for before, after in pairwise([0, *steps]))


def test_evaluate_and_prune_work_on_what_plain_rllib_wrote(
    ray_session: None, tmp_path: Path
) -> None:
    config = (
        PPOConfig()
        .environment("CartPole-v1")
        .env_runners(num_env_runners=0)
        .training(train_batch_size_per_learner=200, minibatch_size=64, num_epochs=1)
        .rl_module(model_config={"fcnet_hiddens": [16, 16]})
    )
    algo = config.build_algo()
    algo.train()
    algo.save_to_path(tmp_path / "plain")
    algo.stop()
    before, _ = rayprune_here("evaluate", tmp_path / "plain", "--episodes", 3, "--json")
    dense = json.loads(before)
    assert dense["policy_parameters"]["nonzero"] > 300
    pruned_at = os.path.relpath(tmp_path / "pruned")
    arguments = ("--out", pruned_at, "--sparsity", 0.5, "--episodes", 3, "--json")
    out, _ = rayprune_here("prune", tmp_path / "plain", *arguments)
    summary = json.loads(out)
    assert summary["sparsity"]["prunable"] == pytest.approx(0.5, abs=0.01)
    assert summary["returns"]["dense_test"]["iqm"] == dense["returns"]["test"]["iqm"]
    after, _ = rayprune_here("evaluate", pruned_at, "--episodes", 3, "--json")
    assert json.loads(after)["returns"]["test"] == summary["returns"]["test"]
    assert json.loads(after)["policy_parameters"]["nonzero"] < 250
    again = ("--out", tmp_path / "again", "--sparsity", 0.4, "--episodes", 3)
    _, err = rayprune_here("prune", pruned_at, *again, code=2)
    assert "nothing left to prune" in err


def test_json_is_one_object_on_standard_output_for_errors_too(tmp_path: Path) -> None:
    config = write(tmp_path / "c.yaml", env="CartPool-v1", stop={"env_steps": -1})
    out, _ = rayprune("train", config, "--out", tmp_path / "run", "--json", code=2)
    message = json.loads(out)["error"]
    assert "CartPool-v1" in str(message)
    assert "stop.env_steps" in str(message)
    assert not (tmp_path / "run").exists()


def test_a_gpu_that_is_not_there_exits_with_2_at_once(ray_session: None, tmp_path: Path) -> None:
    rllib = {**experiments.PPO["rllib"], "learners": {"num_gpus_per_learner": 1, "num_learners": 1}}
    config = write(tmp_path / "c.yaml", rllib=rllib)
    _, err = rayprune_here("train", config, "--out", tmp_path / "run", code=2)
    assert "num_gpus_per_learner" in err
    assert "cluster has 0" in err


def test_a_cluster_that_does_not_answer_is_an_error_within_seconds(tmp_path: Path) -> None:
    config = write(tmp_path / "c.yaml")
    started = time.monotonic()
    _, err = rayprune(
        "train", config, "--out", tmp_path / "run", "--address", "127.0.0.1:1", code=2
    )
    assert "No Ray cluster answers at '127.0.0.1:1'" in err
    assert time.monotonic() - started < 60  # Ray's own patience is minutes


def test_a_directory_that_is_not_empty_is_left_alone(tmp_path: Path) -> None:
    config = write(tmp_path / "c.yaml")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("mine")
    _, err = rayprune_here("train", config, "--out", tmp_path / "run", code=2)
    assert "not empty" in err
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["thesis.txt"]


@contextlib.contextmanager
def mounted(disk: Path, options: str) -> Iterator[Path]:
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("this sandbox may not mount file systems")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@needs_mount
@pytest.mark.parametrize(
    ("options", "message"), [("ro", "read-only"), ("size=1m", "MiB left")], ids=["ro", "full"]
)
def test_a_full_or_read_only_disk_is_an_error_before_training(
    tmp_path: Path, options: str, message: str
) -> None:
    with mounted(tmp_path / "disk", options) as disk:
        config = write(tmp_path / "c.yaml")
        _, err = rayprune_here("train", config, "--out", disk / "run", code=2)
        assert message in err


@needs_mount
@pytest.mark.slow  # three drivers start Ray; a disk that is full at first is tried in every run
def test_a_disk_that_fills_up_stops_the_run_which_then_resumes(tmp_path: Path) -> None:
    config = write(tmp_path / "c.yaml", stop={"env_steps": 4000})
    with mounted(tmp_path / "disk", "size=96m") as disk:
        run = disk / "run"
        process = start("train", config, "--out", run)
        wait_for_checkpoint(process, run)
        filler = disk / "filler"
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        _, err = process.communicate(timeout=300)
        assert process.returncode == 2
        assert "full" in err
        assert "Traceback" not in err
        filler.unlink()
        out, _ = rayprune("train", config, "--out", run, "--resume", "--json")
        assert json.loads(out)["env_steps"] >= 4000
        steps = [row["env_steps"] for row in read_rows(run / "results.jsonl")]
        assert steps == sorted(set(steps))
        assert steps[-1] >= 4000
