"""Whole fits of real, tiny policies on this machine: met, impossible, killed and resumed."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from rayprune.deploy.formats.c.compiler import find_compiler
from rayprune.tracking.record import read_rows
from tests.command_line import rayprune, start, wait_until
from tests.rllib import experiments

pytestmark = [
    pytest.mark.slow,  # trainings in processes of their own
    pytest.mark.timeout(1800),
    pytest.mark.skipif(find_compiler() is None, reason="C files are measured: no compiler here"),
]

FIT: dict[str, Any] = {
    "return": 0.3,
    "flash": "64KB",
    "parameters": 200,
    "widths": [1],
    "sparsities": [0.5, 0.75],
    "population": 1,
    "interval": 400,
    "episodes": 1000,
}


def write(path: Path, **changes: Any) -> Path:
    experiment = {
        **experiments.PPO,
        "stop": {"env_steps": 800},
        "evaluation": {"every": 400, "episodes": 3, "max_steps": 100},
        "fit": {**FIT, **changes},
    }
    path.write_text(json.dumps(experiment))  # JSON is YAML too
    return path


def events(out: Path) -> list[str]:
    path = out / "fit.jsonl"
    return [row["event"] for row in read_rows(path)] if path.is_file() else []


def check_result(out: Path, result: dict[str, Any]) -> None:
    chosen = result["chosen"]
    assert result["met"]
    assert chosen["certified"]
    assert all(use["met"] for use in chosen["uses"])
    assert chosen["figures"]["parameters"] <= 200
    for name in ("policy.c", "policy.h", "policy.c.json", "certificate.json", "model_card.md"):
        assert (out / "artifact" / name).is_file()
    certificate = json.loads((out / "artifact" / "certificate.json").read_text())
    assert certificate["policies"]["pruned"]["sha256"] == chosen["sha256"]
    assert chosen["sha256"] in (out / "artifact" / "model_card.md").read_text()
    page = (out / "report.html").read_text()
    assert "Met and certified" in page
    assert 'id="budgets"' in page
    assert 'id="runs"' in page


def test_a_fit_that_is_killed_goes_on_and_trains_nothing_twice(tmp_path: Path) -> None:
    config, out = write(tmp_path / "c.yaml"), tmp_path / "fit"
    process = start("fit", config, "--out", out, "--json")
    wait_until(lambda: list(out.glob("waves/01/trials/*/checkpoints/*")), process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    before = events(out)
    assert "dense" in before
    trained = (out / "dense" / "summary.json").stat().st_mtime_ns
    told, _ = rayprune("fit", config, "--out", out, "--resume", "--json")
    result = json.loads(told)
    check_result(out, result)
    # What was there is there still, and nothing of it was done again.
    assert events(out)[: len(before)] == before
    assert events(out).count("dense") == 1
    assert (out / "dense" / "summary.json").stat().st_mtime_ns == trained
    assert result == json.loads((out / "fit.json").read_text())
    again, err = rayprune("fit", config, "--out", out, "--resume", "--json")
    assert json.loads(again) == result
    assert "finished already" in err


def test_the_best_of_a_killed_fit_is_the_one_that_uses_least(tmp_path: Path) -> None:
    config = write(tmp_path / "c.yaml", granularities=["neuron"], trials=2)
    out = tmp_path / "fit"
    process = start("fit", config, "--best", "--out", out, "--json")
    wait_until(lambda: "judged" in events(out), process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    first = [row for row in read_rows(out / "fit.jsonl") if row["event"] == "judged"]
    told, _ = rayprune("fit", config, "--best", "--out", out, "--resume", "--json")
    result = json.loads(told)
    check_result(out, result)
    good = [row for row in result["judged"] if row["met"] and row["certified"]]
    assert len(result["judged"]) > len(first) >= 1
    assert result["chosen"]["worst_share"] == min(row["worst_share"] for row in good)
    # Certificates share one error, and the time is that of both processes.
    confidences = [row["confidence"] for row in result["judged"] if "confidence" in row]
    assert confidences == sorted(set(confidences))
    assert result["wall_time_s"] > first[-1]["time_s"] > 1
    assert events(out).count("began") == 2


def test_a_fit_that_keeps_no_return_ends_with_its_nearest_candidates(tmp_path: Path) -> None:
    # Nobody keeps 99.9 % of a return that so few pairs can't show.
    config = write(
        tmp_path / "c.yaml", **{"return": 0.999, "trials": 1, "granularities": ["neuron"]}
    )
    told, _ = rayprune("fit", config, "--out", tmp_path / "fit", "--json", code=1)
    result = json.loads(told)
    assert not result["met"]
    assert result["nearest"] == [result["judged"][0]["candidate"]]
    assert "The nearest: " in result["reason"]
    assert (tmp_path / "fit" / "report.html").is_file()
    assert not (tmp_path / "fit" / "artifact").exists()


def test_what_is_impossible_is_refused_and_leaves_nothing_behind(tmp_path: Path) -> None:
    config = write(tmp_path / "c.yaml", flash="1KB")
    out = tmp_path / "fit"
    told, err = rayprune("fit", config, "--out", out, "--json", code=1)
    result = json.loads(told)
    assert not result["feasible"]
    assert result["reason"].startswith("Not feasible, because of `flash`: ")
    assert not out.exists()
    assert "step" not in err
