"""benchmarks/scaling.py: what a population costs its driver, measured small."""

from __future__ import annotations

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
