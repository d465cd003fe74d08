"""The leaderboard's command line."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.leaderboard import figure, findings, release, tables, wandb_report
from benchmarks.leaderboard.arms import ARMS, SPARSITIES
from benchmarks.leaderboard.cells import RESULTS, Cell, cells
from benchmarks.leaderboard.making import ROOT, make
from benchmarks.leaderboard.running import MARK, LocalPool, RayPool, plan, run_all
from benchmarks.leaderboard.tasks import SUITES, TASKS

EXAMPLE = "example: python -m benchmarks.leaderboard run --suite quick --seeds 3 --slots 2"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code."""
    args = _parser().parse_args(arguments)
    if args.command == "cell":
        cell = Cell(**json.loads(args.key))
        print(MARK + json.dumps(make(cell, args.runs, args.results / "configs")), flush=True)
        return 0
    if args.command == "tables":
        findings.write(args.results, args.findings)
        return tables.write(args.results, args.out)
    if args.command == "figures":
        return figure.write(args.results, args.out)
    if args.command == "release":
        return release.write(args.results, args.runs, args.out)
    if args.command == "report":
        return wandb_report.write(args.results, args.runs.resolve(), args.project)
    return _run(args)


def _run(args: argparse.Namespace) -> int:
    tasks = args.tasks or [t.name for t in TASKS.values() if args.suite in t.suites]
    seeds = args.only_seeds or range(args.seeds)
    wanted = cells(tasks, args.arms or (), args.sparsities, seeds)
    slots = args.slots or os.cpu_count() or 1
    if args.plan:
        print(*plan(wanted, slots, args.results), sep="\n")
        return 0
    pool = RayPool(args.address, args.slots) if args.address else LocalPool(slots)
    failed = run_all(wanted, pool, args.runs.resolve(), args.results.resolve(), args.most)
    if failed:
        print(f"{failed} cells failed; the same command tries them again.", file=sys.stderr)
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.leaderboard", epilog=EXAMPLE)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run what is missing", epilog=EXAMPLE)
    run.add_argument("--suite", choices=SUITES, default="quick", help="which tasks")
    run.add_argument("--tasks", nargs="+", choices=[*TASKS], help="these, in place of a suite's")
    run.add_argument("--arms", nargs="+", choices=[*ARMS], help="these only")
    run.add_argument(
        "--sparsities",
        nargs="+",
        type=float,
        choices=SPARSITIES,
        default=SPARSITIES,
        help="these only",
    )
    run.add_argument("--seeds", type=_count, default=10, help="how many, from 0 on")
    run.add_argument("--only-seeds", nargs="+", type=int, help="these, in place of --seeds")
    run.add_argument("--slots", type=_count, help="cells at a time; default: one a core")
    run.add_argument("--most", type=_count, help="cells to run now, of those that are missing")
    run.add_argument("--address", help="a Ray cluster whose nodes share this folder")
    run.add_argument("--plan", action="store_true", help="tell what is missing, run nothing")
    cell = commands.add_parser("cell", help="make one cell and print its row; for `run`")
    cell.add_argument("key", help="the cell as JSON")
    files = commands.add_parser("release", help="write the exported policies as one archive")
    files.add_argument("--out", type=Path, default=release.ARCHIVE, help="a zip file")
    for command in (run, cell, files):
        command.add_argument(
            "--runs", type=Path, default=ROOT / "runs" / "leaderboard", help="the runs' folder"
        )
    table = commands.add_parser("tables", help="write the tables")
    table.add_argument("--out", type=Path, default=tables.PAGE, help="a Markdown file")
    table.add_argument(
        "--findings", type=Path, default=findings.PAGE, help="a page whose tables are renewed"
    )
    drawn = commands.add_parser("figures", help="write the figures")
    drawn.add_argument("--out", type=Path, default=figure.FOLDER, help="their folder")
    report = commands.add_parser(
        "report", help="write the rows as W&B runs, and a W&B Report of them"
    )
    report.add_argument(
        "--runs", type=Path, default=ROOT / "runs" / "leaderboard-wandb", help="the runs' folder"
    )
    report.add_argument("--project", default=wandb_report.PROJECT, help="W&B's project")
    for command in (run, cell, table, drawn, report, files):
        command.add_argument("--results", type=Path, default=RESULTS, help="the rows' folder")
    return parser


def _count(text: str) -> int:
    """Return a whole number of at least 1; argparse tells of others."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, but is {number}")
    return number


if __name__ == "__main__":
    sys.exit(main())
