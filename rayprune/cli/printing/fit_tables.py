"""What people read of a fit: what is feasible, its progress, and what has come of it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from rich.table import Table

from rayprune.cli.printing.certificate_tables import TerminalCertifyReporter
from rayprune.cli.printing.population import PopulationReporter
from rayprune.cli.printing.terminal_reporter import number
from rayprune.fit.budgets import BUDGETS
from rayprune.fit.feasibility import PRESUMED


class TerminalFitReporter(PopulationReporter):
    """A `rayprune.fit.choice.FitReporter` on a console."""

    def certificate(self) -> AbstractContextManager[TerminalCertifyReporter]:
        """See `FitReporter.certificate`."""
        self.close()
        return TerminalCertifyReporter(self._console)


def plan_table(told: Mapping[str, Any]) -> Table:
    """Return all candidates, those first that are trained first.

    Args:
        told: what `rayprune.fit.fit.planned` returned.
    """
    limits = ", ".join(
        f"{name} {BUDGETS[name].quantity.text(limit)}" for name, limit in told["budgets"].items()
    )
    table = Table(
        title=f"Candidates for {told['target']}: {limits}",
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    table.add_column("candidate", no_wrap=True)
    table.add_column("weights", justify="right")
    for name in told["budgets"]:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict")
    for one in told["candidates"]:
        figures = one["figures"] or {}
        table.add_row(
            one["candidate"],
            f"{one['weights']:,}",
            *(_figure(name, figures.get(BUDGETS[name].figure)) for name in told["budgets"]),
            # Figures speak for themselves, but where they are doubted.
            one["verdict"]
            if figures and one["verdict"] != PRESUMED
            else f"{one['verdict']} ({one['reason']})",
        )
    table.caption = (
        "Weights are counted, and take 4 bytes each, or as many bits as they are rounded to. "
        "Figures are measured on untrained networks; where there are none, the neighbour named was."
    )
    table.caption_justify = "left"
    return table


def uses_table(result: Mapping[str, Any]) -> Table:
    """Return each budget with what is used of it, by the chosen or by the nearest candidates.

    Args:
        result: what `rayprune.fit.fit.run_fit` returned.
    """
    chosen = result["chosen"]
    judged = {row["candidate"]: row for row in result["judged"]}
    shown = [chosen] if chosen is not None else [judged[name] for name in result["nearest"]]
    title = "Met and certified" if result["met"] else "Not met; the nearest candidates"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name in ("candidate", "budget", "limit", "measured", "used", ""):
        table.add_column(name, justify="right" if name in ("limit", "measured", "used") else "left")
    for row in shown:
        for use in row.get("uses", ()):
            quantity = BUDGETS[use["budget"]].quantity
            table.add_row(
                row["candidate"],
                use["budget"],
                quantity.text(use["limit"]),
                _figure(use["budget"], use["measured"]),
                "-" if use["share"] is None else f"{100 * use['share']:.0f} %",
                "met" if use["met"] else "NOT met",
            )
    return table


def fit_lines(result: Mapping[str, Any], out: Path) -> list[str]:
    """Return what has come of it, in lines."""
    dense = result["dense"]
    lines = [
        f"Dense          {number(dense['validation']['iqm'])} on the validation seeds; "
        f"{number(dense['floor'])} are asked for",
        f"Result         {result['reason']}",
    ]
    artifact = result.get("artifact")
    if artifact is not None:
        lines += [
            f"File           {out / artifact['file']}",
            f"Certificate    {out / artifact['certificate']}",
            f"Model card     {out / artifact['model_card']}",
        ]
    return [*lines, f"Page           {out / 'report.html'}"]


def _figure(name: str, value: float | None) -> str:
    return "" if value is None else BUDGETS[name].quantity.text(value)
