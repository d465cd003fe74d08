"""The comparison as a W&B Report: the same questions, asked of the runs that W&B holds.

W&B draws a report from runs that have been uploaded. Without an account the report's specification
is written to a file, whole and checkable, but there is nothing to show it with.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rayprune.errors import InputError, first_line
from rayprune.extras import pip_line
from rayprune.tracking.record import to_json, write_atomic
from rayprune.tracking.report.data import report_data
from rayprune.tracking.report.entries import Data
from rayprune.tracking.report.page import render_markdown_table, title_of

if TYPE_CHECKING:
    import wandb_workspaces.reports.v2 as wr

_SPARSITY = "sparsity/prunable"
_VALIDATION = "returns/validation/iqm"
_TEST = "returns/test/iqm"


def write_wandb_report(paths: Sequence[Path], out: Path) -> dict[str, Any]:
    """Save the comparison as a W&B Report; without an account write its specification.

    Args:
        paths: directories of runs and of sweeps.
        out: the file for the specification.

    Returns:
        ``url`` of the saved report or None, ``spec`` file or None, and ``hint``: what to do next.

    Raises:
        InputError: a path is neither a run nor a sweep, or wandb-workspaces isn't installed.
    """
    data = report_data(paths)
    return publish(lambda entity: build(data, entity), out, runs="RUN")


def publish(build: Callable[[str | None], wr.Report], out: Path, *, runs: str) -> dict[str, Any]:
    """Save a W&B Report; without an account write its specification.

    Args:
        build: returns the report of W&B's user or team, or of None for no account at all.
        out: the file for the specification.
        runs: where the runs lie that the report shows, as a pattern of a shell.

    Returns:
        ``url`` of the saved report or None, ``spec`` file or None, and ``hint``: what to do next.

    Raises:
        InputError: wandb-workspaces isn't installed.
    """
    require()
    import wandb

    # The runs' own modes don't matter here: who asks for a W&B Report wants to reach W&B.
    fault = "there is no key for W&B"
    if wandb.login(prompt=False, verify=False):
        try:
            report = build(wandb.Api().default_entity)
            report.save()
            hint = "The report shows the runs that W&B has: upload offline ones with `wandb sync`."
            return {"url": report.url, "spec": None, "hint": hint}
        except Exception as error:  # W&B raises its own, requests' and pydantic's
            fault = f"W&B did not take it ({first_line(error)})"
    write_atomic(out, spec_json(build(None)))
    hint = (
        f"Not published, because {fault}. To publish it: `wandb login`, upload the runs with "
        f"`wandb sync {runs}/wandb/offline-run-*`, and give this command again."
    )
    return {"url": None, "spec": str(out), "hint": hint}


def build(data: Data, entity: str | None = None) -> wr.Report:
    """Return the W&B Report of what `report_data` gave, not yet saved.

    Args:
        data: the comparison.
        entity: W&B's user or team. Without one the report can be built with no account at all.
    """
    require()
    with warnings.catch_warnings():
        # wandb-workspaces 0.4 builds its classes with what pydantic 2.14 calls deprecated.
        warnings.simplefilter("ignore")
        import wandb_workspaces.reports.v2 as wr

        project = _project(data)
        runsets = [runset(group, entity, project) for group in _groups(data)]
        blocks = [
            wr.P("How sparse, at what return. Built by rayprune report --wandb."),
            wr.PanelGrid(runsets=runsets, panels=_panels(data)),
            wr.H2("All runs"),
            wr.MarkdownBlock(render_markdown_table(data["runs"])),
        ]
        return wr.Report(
            project=project,
            entity=entity or "",
            title=title_of(data),
            description="Sparsity against return, compared by rayprune.",
            blocks=blocks,
            width="fluid",
        )


def spec_json(report: wr.Report) -> str:
    """Return the report's specification, as W&B's server stores it, in JSON."""
    spec = report._to_model().spec.model_dump_json(by_alias=True, exclude_none=True)
    return to_json(json.loads(spec), indent=2) + "\n"


def require() -> None:
    """Refuse to go on where wandb-workspaces isn't installed.

    Raises:
        InputError: has the one line of pip.
    """
    try:
        distribution("wandb-workspaces")
    except PackageNotFoundError as error:
        raise InputError(f"A W&B Report needs wandb-workspaces: {pip_line('wandb')}.") from error


def _project(data: Data) -> str:
    configured = [run["config"].get("tracking.project") for run in data["runs"]]
    return next((str(project) for project in configured if project), "rayprune")


def _groups(data: Data) -> list[str]:
    """Return W&B's groups: a sweep's trials are one, an experiment's seeds another."""
    names = [run["sweep"] or run["config"].get("name") for run in data["runs"]]
    return list(dict.fromkeys(str(name) for name in names if name))


def runset(group: str, entity: str | None, project: str) -> wr.Runset:
    """Return the runs of one of W&B's groups."""
    import wandb_workspaces.reports.v2 as wr
    from wandb_workspaces import expr

    where: Mapping[str, str] = {"entity": entity, "project": project} if entity else {}
    return wr.Runset(name=group, filters=[expr.Metric("group") == group], **where)


def _panels(data: Data) -> list[Any]:
    import wandb_workspaces.reports.v2 as wr

    wide, half = 24, 12
    axes = dict.fromkeys(
        axis["key"] for one in data["choices"] for axis in one["axes"][:-2]
    ) or dict.fromkeys(["pruning.sparsity", "pruning.criterion"])
    columns = [wr.ParallelCoordinatesPlotColumn(wr.Config(key), key) for key in axes]
    columns += [
        wr.ParallelCoordinatesPlotColumn(wr.SummaryMetric(_SPARSITY), "sparsity reached"),
        wr.ParallelCoordinatesPlotColumn(wr.SummaryMetric(_VALIDATION), "validation return"),
    ]
    lines = [
        ("Return against step", ["return_mean", "validation/iqm"], "return per episode"),
        ("Sparsity against step", ["sparsity"], "sparsity of prunable weights"),
    ]
    return [
        wr.ScatterPlot(
            title="Validation return against sparsity",
            x=wr.SummaryMetric(_SPARSITY),
            y=wr.SummaryMetric(_VALIDATION),
            running_ymax=True,
            layout=wr.Layout(0, 0, half, 9),
        ),
        wr.ScatterPlot(
            title="Test return against sparsity (chooses nothing)",
            x=wr.SummaryMetric(_SPARSITY),
            y=wr.SummaryMetric(_TEST),
            layout=wr.Layout(half, 0, half, 9),
        ),
        *(
            wr.LinePlot(
                title=title,
                x="env_steps",
                y=list(keys),
                title_x="env steps",
                title_y=unit,
                layout=wr.Layout(half * n, 9, half, 9),
            )
            for n, (title, keys, unit) in enumerate(lines)
        ),
        wr.ParallelCoordinatesPlot(
            title="What was chosen", columns=columns, layout=wr.Layout(0, 18, wide, 9)
        ),
        wr.RunComparer(diff_only="split", layout=wr.Layout(0, 27, wide, 12)),
    ]
