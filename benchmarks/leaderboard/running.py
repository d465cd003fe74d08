"""Running: missing cells in processes of their own; each row appended once it is whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from benchmarks.commands import ROOT
from benchmarks.leaderboard.cells import RESULTS, Cell, befores, missing, rows, seconds
from rayprune.tracking.record import Record

MARK = "ROW "
"""Begins the line of a cell's process that holds its row."""


class Pool(Protocol):
    """Where cells' processes are run."""

    slots: int

    def submit(self, command: Sequence[str]) -> Any:
        """Start a command; return a handle of it."""

    def finished(self, handles: Sequence[Any]) -> tuple[Any, dict[str, Any] | str]:
        """Wait for one of the handles; return it, and its row or what went wrong."""


@dataclass
class LocalPool:
    """Processes on this machine."""

    slots: int

    def __post_init__(self) -> None:
        self._threads = ThreadPoolExecutor(self.slots)

    def submit(self, command: Sequence[str]) -> Future[Any]:
        """See `Pool.submit`."""
        return self._threads.submit(run_process, list(command))

    def finished(self, handles: Sequence[Future[Any]]) -> tuple[Any, dict[str, Any] | str]:
        """See `Pool.finished`."""
        done, _ = wait(handles, return_when=FIRST_COMPLETED)
        first = done.pop()
        return first, first.result()


class RayPool:
    """Processes on the nodes of a Ray cluster, which all see this checkout and the runs' folder."""

    def __init__(self, address: str, slots: int | None) -> None:
        import ray

        ray.init(address=address, log_to_driver=False)
        self.slots = slots or int(ray.cluster_resources().get("CPU", 1))
        self._ray, self._run = ray, ray.remote(num_cpus=1)(run_process)

    def submit(self, command: Sequence[str]) -> Any:
        """See `Pool.submit`."""
        return self._run.remote(list(command))

    def finished(self, handles: Sequence[Any]) -> tuple[Any, dict[str, Any] | str]:
        """See `Pool.finished`."""
        done, _ = self._ray.wait(list(handles))
        try:
            return done[0], self._ray.get(done[0])
        except self._ray.exceptions.RayError as error:  # its node is gone, for one
            return done[0], str(error)


def run_process(command: list[str]) -> dict[str, Any] | str:
    """Run a cell's command; return its row, or the end of what it said."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    # A cell starts a Ray of its own, also where it is run by one.
    held = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    environment = {**held, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    answer = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    for line in answer.stdout.splitlines():
        if line.startswith(MARK):
            row: dict[str, Any] = json.loads(line.removeprefix(MARK))
            return row
    return answer.stderr[-2000:] or f"exit code {answer.returncode}"


def command_of(cell: Cell, runs: Path, results: Path) -> list[str]:
    """Return the command of a cell's process."""
    whole = [sys.executable, "-m", "benchmarks.leaderboard", "cell", json.dumps(cell.key)]
    return [*whole, "--runs", str(runs), "--results", str(results)]


def run_all(
    wanted: Sequence[Cell], pool: Pool, runs: Path, results: Path = RESULTS, most: int | None = None
) -> int:
    """Run what is missing; return how many cells failed.

    A cell waits for the one whose policy it prunes or learns from; where that failed, it fails.
    One that has its row, but whose policy isn't here, is trained again for those that need it.

    Args:
        wanted: in their order.
        pool: where.
        runs: the runs' folder.
        results: the rows' folder.
        most: how many at most; None for all.
    """
    lacking = missing(wanted, results)[:most]
    again = _lost_sources(lacking, runs)
    waiting, going, failed = [*again, *lacking], dict[Any, Cell](), list[Cell]()
    whole, began = len(waiting), time.perf_counter()
    while waiting or going:
        for cell in _ready(waiting, [*going.values()], failed, pool.slots):
            waiting.remove(cell)
            going[pool.submit(command_of(cell, runs, results))] = cell
        if not going:  # what is left waits for a cell that failed
            failed += waiting
            break
        handle, outcome = pool.finished([*going])
        cell = going.pop(handle)
        if isinstance(outcome, str):
            failed.append(cell)
            print(f"{cell.name} failed:\n{outcome}", file=sys.stderr, flush=True)
        else:
            if cell not in again:
                append(outcome, results)
            done = whole - len(waiting) - len(going)
            spent = (time.perf_counter() - began) / 60
            told = f"{cell.name}: {outcome['score']['mean']:.1f}"
            print(f"[{done}/{whole}, {spent:.0f} min] {told}", file=sys.stderr, flush=True)
    return len(failed)


def _lost_sources(lacking: Sequence[Cell], runs: Path) -> list[Cell]:
    """Return the cells that have a row but no run here, of those that others are made of."""
    sources = (before for cell in lacking for before in befores(cell))
    return [
        cell
        for cell in dict.fromkeys(sources)
        if cell not in lacking and not (runs / cell.name / "summary.json").is_file()
    ]


def _ready(
    waiting: Sequence[Cell], going: Sequence[Cell], failed: Sequence[Cell], slots: int
) -> list[Cell]:
    """Return the next cells to start: first come first, but none before what it prunes is done."""
    open_yet = {*waiting, *going, *failed}
    free = [cell for cell in waiting if cell.before not in open_yet]
    return free[: max(0, slots - len(going))]


def append(row: dict[str, Any], results: Path = RESULTS) -> None:
    """Add a row to its task's file."""
    results.mkdir(parents=True, exist_ok=True)
    with Record.open(results / f"{row['task']}.jsonl") as record:
        record.append(row)


def plan(wanted: Sequence[Cell], slots: int, results: Path = RESULTS) -> Iterator[str]:
    """Yield what is missing, a line a task and arm, and what it will take."""
    lacking = missing(wanted, results)
    known = [
        row for row in rows([*dict.fromkeys(c.task for c in wanted)], results) if "seconds" in row
    ]
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in lacking:
        groups.setdefault((cell.task, cell.arm), []).append(cell)
    for (task, arm), group in groups.items():
        hours = sum(seconds(cell, known) for cell in group) / 3600
        yield f"{task:20} {arm:14} {len(group):4} cells  {hours:6.1f} core hours"
    hours = sum(seconds(cell, known) for cell in lacking) / 3600
    yield (
        f"{len(lacking)} of {len(wanted)} cells are missing: about {hours:.1f} core hours, "
        f"{hours / slots:.1f} with {slots} at a time."
    )


__all__ = ["LocalPool", "RayPool", "append", "plan", "run_all"]
