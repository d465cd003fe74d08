"""The leaderboard in W&B: a run for each row, and a W&B Report that compares them.

A row stands for a training that is over, and that W&B had no part in; so its run is written from
the row: what it is of as config, its validation curve, and what it came to as summary.
"""

from __future__ import annotations

import shutil
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.leaderboard import scoring, tables
from benchmarks.leaderboard.cells import Cell, cell_of, rows
from benchmarks.leaderboard.tasks import SUITES, TASKS, Task
from rayprune.errors import InputError
from rayprune.tracking.record import to_json, write_atomic
from rayprune.tracking.report.wandb_report import publish, require, runset
from rayprune.tracking.wandb import WandbTracker

if TYPE_CHECKING:
    import wandb_workspaces.reports.v2 as wr

PROJECT: Final = "rayprune-leaderboard"
SPEC: Final = "report.wandb.json"
ROW: Final = "row.json"
"""In a run's folder, once it is whole: the row that it is of."""
SCORE: Final = "score/mean"
SPARSITY: Final = "actor/sparsity"
FLASH: Final = "targets/cortex-m4/flash_bytes"
CURVE: Final = "validation/mean"
_FIGURES: Final = ("env_steps", "train_s", "score", "shifts", "actor", "flops", "file", "targets")
"""What a run's summary takes of a row."""

Row = Mapping[str, Any]


def write(results: Path, place: Path, project: str) -> int:
    """Write the runs of all rows, and publish the report; return the exit code.

    Args:
        results: the rows' folder.
        place: the runs' folder; a row whose run is there is left as it is.
        project: W&B's.
    """
    known = rows([*TASKS], results)
    if not known:
        print(f"There are no rows in {results}: nothing to report.", file=sys.stderr)
        return 1
    try:
        require()
        new = write_runs(known, place, project)
        told = publish(
            lambda entity: build(known, entity, project), place / SPEC, runs=f"{place}/*/*"
        )
    except InputError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{len(known)} runs in {place}, {new} of them new.")
    print(told["url"] or told["spec"], told["hint"], sep="\n")
    return 0


def write_runs(known: Sequence[Row], place: Path, project: str) -> int:
    """Write a W&B run for each row that has none yet; return how many.

    They go to W&B where it has a key for this machine, and stay offline else.
    """
    mode, new = "online" if _has_key() else "offline", 0
    for row in known:
        cell = cell_of(row)
        folder = place / cell.name
        if (folder / ROW).is_file():
            continue
        shutil.rmtree(folder, ignore_errors=True)  # of a command that was killed
        folder.mkdir(parents=True)
        faults: list[str] = []
        tracker = WandbTracker(
            folder,
            mode=mode,
            project=project,
            name=cell.name,
            group=cell.task,
            tags=(cell.task, cell.arm),
            tell=faults.append,
            job_type="leaderboard",
        )
        _follow(tracker, row)
        write_atomic(folder / ROW, to_json(row))
        new += 1
        if faults:  # one outage is waited for, and told, once
            mode = "offline"
            print(*faults, sep="\n", file=sys.stderr)
    return new


def _follow(tracker: WandbTracker, row: Row) -> None:
    cell = cell_of(row)
    kept = {key: row[key] for key in ("config", "commands", "versions") if key in row}
    tracker.start({**cell.key, "policy": policy(cell), **kept})
    for step, value in row.get("curve", ()):
        tracker.row({"env_steps": step, "validation": {"mean": value}})
    tracker.finish({key: row[key] for key in _FIGURES if key in row})


def policy(cell: Cell) -> str:
    """Return what charts call an arm at its sparsity.

    >>> policy(Cell(task="hopper", arm="cubic", sparsity=0.95, seed=0))
    'cubic at 95 %'
    >>> policy(Cell(task="hopper", arm="dense", sparsity=0.0, seed=0))
    'dense'
    """
    return f"{cell.arm} at {100 * cell.sparsity:g} %" if cell.sparsity else cell.arm


def build(known: Sequence[Row], entity: str | None, project: str) -> wr.Report:
    """Return the W&B Report of all rows, not yet saved.

    Args:
        known: the rows.
        entity: W&B's user or team; None for a report that no account is needed for.
        project: W&B's, which has the runs.
    """
    with warnings.catch_warnings():
        # wandb-workspaces 0.4 builds its classes with what pydantic 2.14 calls deprecated.
        warnings.simplefilter("ignore")
        import wandb_workspaces.reports.v2 as wr

        tasks = [task for task in TASKS.values() if _of(task, known)]
        blocks: list[Any] = [
            wr.P("The smallest policy that still earns the dense policy's return."),
            wr.MarkdownBlock("\n".join(_suites(known)).strip()),
        ]
        for task in tasks:
            runs = [runset(task.name, entity, project)]
            told = "\n".join(tables.task_table(task, _of(task, known))).strip()
            blocks += [wr.MarkdownBlock(told), wr.PanelGrid(runsets=runs, panels=_panels())]
        return wr.Report(
            project=project,
            entity=entity or "",
            title="Leaderboard",
            description=f"{len(known)} rows of {', '.join(task.name for task in tasks)}; charts "
            "show single runs, and means over them; the tables have the intervals.",
            blocks=blocks,
            width="fluid",
        )


def _of(task: Task, known: Sequence[Row]) -> list[Row]:
    return [row for row in known if row["task"] == task.name]


def _suites(known: Sequence[Row]) -> list[str]:
    """Return the tables of the suites that have a task with a scale."""
    scaled = scoring.references(known)
    suites = [s for s in SUITES if any(s in TASKS[name].suites for name in scaled)]
    told = [line for suite in suites for line in tables.suite_table(suite, known)]
    return [*told, *tables.noise_table(known)]


def _panels() -> list[Any]:
    import wandb_workspaces.reports.v2 as wr

    half, high = 12, 9
    by_policy = {"groupby": wr.Config("policy"), "groupby_aggfunc": "mean"}
    return [
        wr.ScatterPlot(
            title="Return of the exported file against flash on a Cortex-M4",
            x=wr.SummaryMetric(FLASH),
            y=wr.SummaryMetric(SCORE),
            log_x=True,
            layout=wr.Layout(0, 0, half, high),
        ),
        wr.ScatterPlot(
            title="Return of the exported file against the actor's sparsity",
            x=wr.SummaryMetric(SPARSITY),
            y=wr.SummaryMetric(SCORE),
            layout=wr.Layout(half, 0, half, high),
        ),
        wr.LinePlot(
            title="Validation return against step, mean over seeds",
            x="env_steps",
            y=[CURVE],
            title_x="env steps",
            title_y="return per episode",
            layout=wr.Layout(0, high, half, high),
            **by_policy,
        ),
        wr.BarPlot(
            title="Return of the exported file, mean over seeds",
            metrics=[SCORE],
            title_x="return per episode",
            layout=wr.Layout(half, high, half, high),
            **by_policy,
        ),
        wr.RunComparer(diff_only="split", layout=wr.Layout(0, 2 * high, 2 * half, 12)),
    ]


def _has_key() -> bool:
    import wandb

    return bool(wandb.login(prompt=False, verify=False))
