"""``rayprune report``: runs and sweeps, compared on one page."""

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
            metavar="DIR|URL...", help="Directories of runs and of sweeps.", show_default=False
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The page; default: report.html in the first DIR, or here."
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
    """Compare any number of runs and sweeps on one HTML page that opens from disk.

    Example: rayprune report runs/pbt_cartpole runs/ppo_cartpole-seed0 --out report.html
    """
    from rayprune.tracking.report import report_data, write_report

    here = Path() if url_of(directories[0]) else directories[0]
    directories = [fetch_record(directory) for directory in directories]
    page = write_report(directories, out or here / "report.html")
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
