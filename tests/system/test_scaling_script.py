"""benchmarks/scaling.py: what a population costs its driver, measured small."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "scaling.py"


def measured(*options: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--quick", "--json", *options],
        env={**os.environ, "PYTHONWARNINGS": "default"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.slow  # a benchmark's script; test_many_trials.py holds what the driver must not keep
@pytest.mark.timeout(240)
def test_rayprunes_driver_is_measured_without_ray_beside_plain_tune() -> None:
    options = ("--populations", "3", "--results", "2", "--arms", "rayprune", "tune, no loggers")
    ours, plain = measured("--parts", "driver", *options)["driver"]
    for row in (ours, plain):
        assert (row["population"], row["slots"], row["errors"]) == (3, 3, 0)
        assert row["results"] >= 6
        assert 0 < row["s_per_result"] < row["start_s_per_trial"]
    assert ours["parts"]["rows, state and config on disk"]["calls"] == ours["results"]
    assert "archive" not in plain["parts"]
    # Rows, which Tune is not to hold, would be many times as much.
    assert ours["state_bytes"] / 3 < 40_000


@pytest.mark.parametrize(("arrays", "status"), [(241_397, 0), (400_000, 1)])
def test_a_checkpoint_that_is_not_smaller_in_proportion_is_told(
    arrays: int, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    script = importlib.import_module("scaling")
    rows = [
        {
            "sparsity": sparsity,
            **{form: {"arrays": n, "all": n} for form in ("stored", "with_zeros")},
        }
        for sparsity, n in ((0.0, 1_625_063), (0.9, arrays))
    ]
    monkeypatch.setattr(script, "ask", lambda *_: rows)
    monkeypatch.setattr("sys.argv", ["scaling.py", "--parts", "bytes"])
    assert script.main() == status
    assert ("NOT IN PROPORTION" in capsys.readouterr().out) == bool(status)


@pytest.mark.slow  # two Rays; the checkpoints' bytes have a test of their own
@pytest.mark.timeout(400)
def test_actors_and_checkpoints_are_measured() -> None:
    found = measured("--parts", "ray", "bytes", "--arms", "rayprune")
    (row,) = found["ray"]
    assert (row["results"] >= 12, row["errors"]) == (True, 0)
    dense, sparse = found["bytes"]
    assert sparse["sparsity"] == 0.9
    assert sparse["stored"]["arrays"] < 0.3 * dense["stored"]["arrays"]
    assert sparse["with_zeros"]["arrays"] > 0.9 * dense["with_zeros"]["arrays"]
