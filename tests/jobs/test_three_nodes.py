"""Jobs on three real nodes, sent from outside of the cluster; nodes die in the middle."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from rayprune.tracking.record import read_rows
from tests.jobs.nodes import Nodes, answer_of, nodes, wait_for
from tests.rllib import experiments

pytestmark = [
    pytest.mark.slow,  # three Ray nodes for minutes
    pytest.mark.timeout(1800),
]

INTERVAL, STEPS = 400, 2400
SWEEP: dict[str, Any] = {
    **experiments.PPO,
    "stop": {"env_steps": STEPS},
    "search": {
        "population": 4,
        "space": {"pruning.sparsity": {"uniform": [0.3, 0.95]}},
        "interval": INTERVAL,
        "synch": True,
    },
}


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Nodes]:
    """The head has no CPUs for trials, so that a sweep's driver is all it has."""
    with nodes(tmp_path) as made:
        made.start(0, cpus=0)
        for host in (1, 2):
            made.start(host, cpus=1)
        made.wait(3)
        yield made


def rows_of(out: Path) -> dict[str, list[dict[str, Any]]]:
    return {path.parent.name: read_rows(path) for path in out.glob("trials/*/results.jsonl")}


def check_sweep(out: Path) -> None:
    """Every trial is complete, and every env step of each is in its record, once."""
    outcome = json.loads((out / "sweep.json").read_text())
    assert [trial["status"] for trial in outcome["trials"]] == ["done"] * 4
    for trial, rows in rows_of(out).items():
        steps = [row["env_steps"] for row in rows]
        assert steps == sorted(set(steps)), trial
        assert steps[-1] >= STEPS
        assert all(now - before < 220 for before, now in pairwise([0, *steps])), trial


def write(directory: Path, config: dict[str, Any]) -> Path:
    directory.mkdir()
    (directory / "c.yaml").write_text(json.dumps(config))
    return directory


def test_a_sweep_outlives_a_worker_node_and_then_another_resumes_after_its_head(
    three: Nodes, tmp_path: Path
) -> None:
    directory, out = write(tmp_path / "work", SWEEP), tmp_path / "shared" / "first"
    job = three.submit(directory, "c.yaml", "--out", out)
    wait_for(job, lambda: sum(map(len, rows_of(out).values())) >= 6)
    three.kill(2)
    answer, told = answer_of(job)
    assert answer["status"] == "SUCCEEDED"
    assert "2 of 4 run at once" in told
    check_sweep(out)

    second = tmp_path / "shared" / "second"
    job = three.submit(directory, "c.yaml", "--out", second, "--no-wait")
    answer_of(job)
    deadline = time.monotonic() + 600
    while sum(map(len, rows_of(second).values())) < 6:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    for host in (0, 1):
        three.kill(host)
    assert not (second / "sweep.json").exists()
    three.start(0, cpus=0)
    three.start(1, cpus=1)
    three.wait(2)
    answer_of(three.submit(directory, "c.yaml", "--out", second, "--resume"))
    check_sweep(second)
