"""``rayprune report``: runs, sweeps and fits, compared on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rayprune.cli.options import AsJson, Debug, tell
from rayprune.storage.urls import url_of
from rayprune.tracking.remote import fetch_record


def report(
    directories: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR|URL...", help="Directories of runs, sweeps and fits.", show_default=False
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The page; default: report.html in the first DIR (a fit has its own, and gets "
            "comparison.html), or here.",
        ),
    ] = None,
    wandb: Annotated[
        bool,
        typer.Option(
            "--wandb", help="Build the comparison as a W&B Report, too; its spec without a key."
        ),
    ] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> dict[str, Any]:
    """Compare any number of runs, sweeps and fits on one HTML page that opens from disk.

    Example: rayprune report runs/pbt_cartpole runs/ppo_cartpole-seed0 --out report.html
    """
    from rayprune.tracking.report import report_data, write_report
    from rayprune.tracking.report.read import is_fit

    here = Path() if url_of(directories[0]) else directories[0]
    directories = [fetch_record(directory) for directory in directories]
    page = write_report(directories, out or here / _page_name(is_fit(here)))
    told: dict[str, Any] = {"report": str(page), **_counts(report_data(directories))}
    if not as_json:
        tell(f"Report         {page}")
    if wandb:
        from rayprune.tracking.report.wandb_report import write_wandb_report

        told["wandb"] = write_wandb_report(directories, page.with_suffix(".wandb.json"))
        if not as_json:
            place = told["wandb"]["url"] or told["wandb"]["spec"]
            tell(f"W&B Report     {place}", told["wandb"]["hint"])
    return told


def _page_name(is_fit: bool) -> str:
    # A fit's own page also has its budgets, and isn't written over.
    return "comparison.html" if is_fit else "report.html"


def _counts(data: dict[str, Any]) -> dict[str, Any]:
    """Return what a program may want to know of the page without reading it."""
    return {
        "runs": len(data["runs"]),
        "sweeps": len(data["sweeps"]),
        "front": [
            {key: point[key] for key in ("label", "sparsity", "return", "test_return")}
            for front in data["fronts"]
            for point in front["points"]
            if point["on_front"]
        ],
    }
