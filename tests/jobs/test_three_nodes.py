"""Jobs on three real nodes, sent from outside of the cluster; nodes die in the middle."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from rayprune.tracking.record import read_rows
from tests.jobs.hosts import ROOT, Hosts, cleaned, hosts, possible, wait_for_nodes
from tests.rllib import experiments

pytestmark = [
    pytest.mark.slow,  # three Ray nodes for minutes
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        not possible(),
        reason="hosts of their own need root; tests/search has a node that dies without",
    ),
]

TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "the-token-of-the-test"}
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


class Nodes:
    """Three hosts; the head has no CPUs for trials, so that a sweep's driver is all it has."""

    def __init__(self, made: Hosts, place: Path) -> None:
        self._hosts, self._place = made, place

    def start(self, host: int, cpus: int) -> None:
        log = self._place / f"host{host}.log"
        self._hosts.start(host, cpus, TOKEN, log)
        if host == 0:
            self.wait(1)

    def wait(self, count: int) -> None:
        wait_for_nodes(self._hosts.url, count, token=TOKEN["RAY_AUTH_TOKEN"])

    def kill(self, host: int) -> None:
        self._hosts.kill(host)

    def submit(
        self, directory: Path, *arguments: object, **variables: str
    ) -> subprocess.Popen[str]:
        """Submit from outside: no Ray node runs in this process's network."""
        command = [sys.executable, "-m", "rayprune", "submit", *map(str, arguments)]
        command += ["--address", self._hosts.url, "--json"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        path = {"PYTHONPATH": str(ROOT)}
        environment = {**cleaned(), **TOKEN, **path, **variables}
        return subprocess.Popen(command, cwd=directory, env=environment, text=True, **pipes)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with hosts(3) as made:
        started = Nodes(made, tmp_path_factory.mktemp("nodes"))
        started.start(0, cpus=0)
        for host in (1, 2):
            started.start(host, cpus=1)
        started.wait(3)
        yield started


def rows_of(out: Path) -> dict[str, list[dict[str, Any]]]:
    return {path.parent.name: read_rows(path) for path in out.glob("trials/*/results.jsonl")}


def wait_for(job: subprocess.Popen[str], ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 600
    while not ready():
        assert job.poll() is None, job.communicate()[1][-4000:]
        assert time.monotonic() < deadline
        time.sleep(0.2)


def answer_of(job: subprocess.Popen[str]) -> tuple[dict[str, Any], str]:
    stdout, stderr = job.communicate(timeout=900)
    assert job.returncode == 0, stderr[-4000:]
    return json.loads(stdout), stderr


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
    nodes: Nodes, tmp_path: Path
) -> None:
    directory, out = write(tmp_path / "work", SWEEP), tmp_path / "shared" / "first"
    job = nodes.submit(directory, "c.yaml", "--out", out)
    wait_for(job, lambda: sum(map(len, rows_of(out).values())) >= 6)
    nodes.kill(2)
    answer, told = answer_of(job)
    assert answer["status"] == "SUCCEEDED"
    assert "2 of 4 run at once" in told
    check_sweep(out)

    second = tmp_path / "shared" / "second"
    job = nodes.submit(directory, "c.yaml", "--out", second, "--no-wait")
    answer_of(job)
    deadline = time.monotonic() + 600
    while sum(map(len, rows_of(second).values())) < 6:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    for host in (0, 1):
        nodes.kill(host)
    assert not (second / "sweep.json").exists()
    nodes.start(0, cpus=0)
    nodes.start(1, cpus=1)
    nodes.wait(2)
    answer_of(nodes.submit(directory, "c.yaml", "--out", second, "--resume"))
    check_sweep(second)
