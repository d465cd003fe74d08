"""Three Ray nodes that are joined, filled with jobs from outside, and killed.

Which kind they are is chosen here: hosts of their own where this process may make them, processes
on this machine otherwise. ``RAYPRUNE_TEST_NODES=processes`` asks for the latter anyway.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.jobs.hosts import ROOT, Hosts, cleaned, hosts, possible, wait_for_agent, wait_for_nodes
from tests.jobs.processes import Processes, processes

TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "the-token-of-the-test"}
REAL = possible() and os.environ.get("RAYPRUNE_TEST_NODES") != "processes"
"""Whether each node is a host of its own."""


class Nodes:
    """Nodes of one cluster, the first of which is the head."""

    def __init__(self, made: Hosts | Processes, place: Path) -> None:
        self._made, self._place = made, place

    def start(self, host: int, cpus: int, **resources: float) -> None:
        self._made.start(host, cpus, TOKEN, self._place / f"host{host}.log", resources)
        if host == 0:
            self.wait(1)
            wait_for_agent(self._made.url, token=TOKEN["RAY_AUTH_TOKEN"])

    def wait(self, count: int) -> None:
        wait_for_nodes(self._made.url, count, token=TOKEN["RAY_AUTH_TOKEN"])

    def kill(self, host: int) -> None:
        self._made.kill(host)

    def submit(
        self, directory: Path, *arguments: object, **variables: str
    ) -> subprocess.Popen[str]:
        """Submit a config from outside: this process is on no node."""
        command = ["-m", "rayprune", "submit", *map(str, arguments), "--json"]
        return self._outside([*command, "--address", self._made.url], directory, variables)

    def submit_script(self, script: Path, *arguments: object) -> subprocess.Popen[str]:
        """Submit a Python script, as `ray job submit` does, and follow it."""
        command = ["-m", "ray.scripts.scripts", "job", "submit", "--address", self._made.url, "--"]
        return self._outside([*command, sys.executable, script, *arguments], ROOT, {})

    def _outside(
        self, command: list[Any], directory: Path, variables: Mapping[str, str]
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *map(str, command)],
            cwd=directory,
            env={**cleaned(), **TOKEN, "PYTHONPATH": str(ROOT), **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@contextmanager
def nodes(place: Path) -> Iterator[Nodes]:
    """Give three nodes, none of them started; take them and what runs on them away again.

    Args:
        place: a directory for their logs.
    """
    with hosts(3) if REAL else processes() as made:
        yield Nodes(made, place)


def wait_for(job: subprocess.Popen[str], ready: Callable[[], bool], limit_s: float = 600) -> None:
    """Wait until something is ready that a job does."""
    deadline = time.monotonic() + limit_s
    while not ready():
        assert job.poll() is None, "".join(job.communicate())[-4000:]
        assert time.monotonic() < deadline
        time.sleep(0.2)


def answer_of(job: subprocess.Popen[str]) -> tuple[dict[str, Any], str]:
    """Return what `rayprune submit --json` answered at a job's good end, and what it told."""
    stdout, stderr = job.communicate(timeout=900)
    assert job.returncode == 0, stderr[-4000:]
    return json.loads(stdout), stderr
