"""The report's part on learning: steps to a share of the reference, and dips after mask updates."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from rayprune.tracking.learning import over_seeds

Data = dict[str, Any]

MOST_DIPS = 300
"""A chart of one run has no more: the deepest are kept."""

SHARES = ("50", "80", "90", "95")


def learning_rows(runs: Sequence[Data], groups: Sequence[Sequence[Data]]) -> list[Data]:
    """Return a row per run that has returns, and one per group of seeds with mean and spread.

    Args:
        runs: as `report_data` makes them, with ``learning``.
        groups: runs that differ in their seeds only.
    """
    rows = [_row(run) for run in runs if _curve(run)]
    return rows + [_group_row(group) for group in groups if all(_curve(run) for run in group)]


def dip_points(learning: Mapping[str, Any] | None) -> list[list[Any]]:
    """Return ``[step, depth, recovery steps or None]`` of the deepest dips, by step."""
    curve = (learning or {}).get("training") or {}
    dips = sorted(curve.get("updates", []), key=lambda dip: -dip["depth"])[:MOST_DIPS]
    return sorted([dip["step"], dip["depth"], dip["recovery_steps"]] for dip in dips)


def learning_table(rows: Sequence[Data]) -> str:
    """Return the rows as an HTML table."""
    names = ["run", "reference", *(f"steps to {share} %" for share in SHARES)]
    names += ["mask updates", "deepest dip", "recovered", "median recovery"]
    head = "".join(
        f'<th scope="col"{" class=num" if n else ""}>{name}</th>' for n, name in enumerate(names)
    )
    body = "".join(
        "<tr>"
        + "".join(
            f"<td{' class=num' if n else ''}>{html.escape(text)}</td>"
            for n, text in enumerate(row["cells"])
        )
        + "</tr>"
        for row in rows
    )
    return (
        '<div class="scroll plain" tabindex="0" role="region" aria-label="Learning, run by run">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _curve(run: Mapping[str, Any]) -> Mapping[str, Any] | None:
    learning = run.get("learning") or {}
    return learning.get("training") or learning.get("validation")


def _row(run: Data) -> Data:
    curve = _curve(run)
    assert curve is not None
    dips = curve["dips"]
    cells = [
        run["label"],
        f"{curve['reference']:,.1f} ({curve['reference_is']})",
        *(_count(curve["steps_to"].get(share)) for share in SHARES),
        f"{dips['updates']:,}",
        _number(dips["deepest"]),
        f"{dips['recovered']} of {dips['observed']}" if dips["observed"] else "-",
        _count(dips["median_recovery_steps"]),
    ]
    return {"env": run["env"], "cells": cells}


def _group_row(group: Sequence[Data]) -> Data:
    curve = "training" if all(run["learning"]["training"] for run in group) else "validation"
    told = over_seeds([run["learning"] for run in group], curve)
    name = group[0]["config"].get("name", "runs")
    cells = [
        f"{name}: {len(group)} seeds, mean ± sd",
        "",
        *(_spread(told["steps_to"][share], len(group)) for share in SHARES),
        "",
        _spread(told["deepest"], len(group)),
        "",
        "",
    ]
    return {"env": group[0]["env"], "cells": cells}


def _spread(block: Mapping[str, Any], runs: int) -> str:
    if block["mean"] is None:
        return "-"
    sd = "" if block["sd"] is None else f" ± {_count(block['sd'])}"
    # A mean of those that arrived says little without how many did not.
    some = "" if block["reached"] == runs else f" ({block['reached']} of {runs})"
    return f"{_count(block['mean'])}{sd}{some}"


def _count(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f}"
