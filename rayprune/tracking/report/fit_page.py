"""The page of a fit: its budgets, its candidates, its certificate, and the runs behind them."""

from __future__ import annotations

import html
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from rayprune.tracking.record import read_rows, write_atomic
from rayprune.tracking.report.certificate_page import chart_data, evidence_sections
from rayprune.tracking.report.data import report_data
from rayprune.tracking.report.page import assemble, comparison_sections, tile_list

_CERTIFICATE = "certificate.json"
_PAIRS = "pairs.jsonl"
Row = Sequence[str]


def write_fit_page(home: Path, result: Mapping[str, Any], runs: Sequence[Path], out: Path) -> Path:
    """Write the page of what `rayprune.fit.fit.run_fit` returns.

    Args:
        home: the fit's directory.
        result: the content of fit.json.
        runs: the sweeps that trained the candidates.
        out: the page's file.
    """
    data: dict[str, Any] = report_data(runs) if runs else {}
    chosen = result["chosen"]
    if chosen is not None:
        place = home / chosen["certificate"]
        certificate = json.loads((place / _CERTIFICATE).read_text(encoding="utf-8"))
        data = {**chart_data(certificate, read_rows(place / _PAIRS)), **data}
    write_atomic(out, render_fit(result, data))
    return out


def render_fit(result: Mapping[str, Any], data: dict[str, Any]) -> str:
    """Return the page's HTML.

    Args:
        result: the content of fit.json.
        data: what the charts are drawn from: the candidates' runs and the certificate.
    """
    chosen = result["chosen"]
    verdict = "Met and certified" if result["met"] else "Not met"
    title = f"{verdict}: {result['name']} on {result['target']}"
    parts = [
        f"<header><h1>{html.escape(title)}</h1><p>{html.escape(result['reason'])}</p></header>",
        tile_list(_tiles(result)),
        _budget_section(result),
        _candidate_section(result),
        *(evidence_sections() if chosen is not None else ()),
        *(comparison_sections(data) if "runs" in data else ()),
    ]
    return assemble(title, "\n".join(parts), data, "rayprune fit")


def _tiles(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    chosen = result["chosen"]
    tiles: list[dict[str, Any]] = [
        {
            "name": "Verdict",
            "value": "met" if result["met"] else "not met",
            "note": f"{result['algorithm']} on {result['env']}, for {result['target']}",
            "form": "text",
        },
        {
            "name": "Candidates trained",
            "value": len(result["trained"]),
            "note": f"of {len(result['plan'])}",
            "form": "count",
        },
    ]
    if chosen is not None:
        mean = chosen["mean"]
        tiles += [
            {
                "name": "Mean return",
                "value": mean["pruned"],
                "note": f"dense {mean['dense']:,.1f}, margin {mean['margin']:,.1f}",
                "form": "return",
            },
            {
                "name": "Tightest budget used",
                "value": chosen["worst_share"],
                "note": max(chosen["uses"], key=lambda use: use["share"])["budget"],
                "form": "percent",
            },
        ]
    return tiles


def told_tools(tools: Mapping[str, str]) -> str:
    """Return what something was measured with, in a line.

    >>> told_tools({"cc": "cc (Debian) 12.2.0", "torch": "2.13.0"})
    'cc (Debian) 12.2.0, torch 2.13.0'
    """
    return ", ".join(
        version if version.startswith(name) else f"{name} {version}"
        for name, version in tools.items()
    )


def _budget_section(result: Mapping[str, Any]) -> str:
    """Return each budget with what the chosen, or else the nearest, candidates use of it."""
    chosen = result["chosen"]
    shown = [chosen] if chosen is not None else _nearest(result)
    rows = [
        [
            row["candidate"],
            use["budget"],
            _number(use["limit"], use["unit"]),
            _number(use["measured"], use["unit"]),
            "" if use["share"] is None else f"{100 * use['share']:.0f} %",
            "met" if use["met"] else "NOT met",
        ]
        for row in shown
        for use in row.get("uses", ())
    ]
    if not rows:
        return ""
    measured = shown[0].get("measurement", {"tools": {}})
    tools = told_tools(measured["tools"])
    whose = "the file that is handed over" if chosen is not None else "the nearest candidates"
    text = f"Of {whose}, measured on {result['target']}{f' with {tools}' if tools else ''}."
    head = ("candidate", "budget", "limit", "measured", "used", "verdict")
    return _table("budgets", "Budgets", text, head, rows, numeric={2, 3, 4})


def _candidate_section(result: Mapping[str, Any]) -> str:
    judged = {row["candidate"]: row for row in result["judged"]}
    rows = []
    for one in result["plan"]:
        row = judged.get(one["candidate"])
        earned = None if row is None else row.get("return")
        left = "not judged" if one["candidate"] in result["trained"] else "not trained"
        rows.append(
            [
                one["candidate"],
                f"{one['weights']:,}",
                f"{one['verdict']}: {one['reason']}",
                "" if earned is None else f"{earned:,.1f}",
                left if row is None else row["reason"],
            ]
        )
    text = (
        "In the order in which they would be trained. Weights are counted on untrained networks. "
        f"The dense policy earns {result['dense']['validation']['iqm']:,.1f} on the validation "
        f"seeds; {result['dense']['floor']:,.1f} are asked for."
    )
    head = ("candidate", "weights left", "before training", "validation return", "after")
    return _table("candidates", "Candidates", text, head, rows, numeric={1, 3}, prose={2, 4})


def _nearest(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    judged = {row["candidate"]: row for row in result["judged"]}
    return [judged[name] for name in result["nearest"]]


def _number(value: float | None, unit: str) -> str:
    if value is None:
        return "not measured"
    text = f"{value:,.0f}" if value == int(value) or value >= 1000 else f"{value:,.4g}"
    return f"{text} {unit}".rstrip()


def _table(
    name: str,
    heading: str,
    text: str,
    head: Row,
    rows: Sequence[Row],
    numeric: set[int],
    prose: Collection[int] = (),
) -> str:
    """Return a section with a table; cells of the columns of `prose` may have several lines."""
    kinds = dict.fromkeys(numeric, " class=num") | dict.fromkeys(prose, " class=prose")
    columns = "".join(
        f'<th scope="col"{kinds.get(n, "")}>{html.escape(one)}</th>' for n, one in enumerate(head)
    )
    body = "".join(
        "<tr>"
        + "".join(f"<td{kinds.get(n, '')}>{html.escape(cell)}</td>" for n, cell in enumerate(row))
        + "</tr>"
        for row in rows
    )
    return (
        f'<section id="{name}" class="wide" aria-labelledby="{name}-h">'
        f'<h2 id="{name}-h">{heading}</h2><p class="note">{html.escape(text)}</p>'
        f'<div class="scroll plain" tabindex="0" role="region" aria-labelledby="{name}-h">'
        f"<table><thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table></div></section>"
    )
