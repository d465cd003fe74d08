"""The page of a sensitivity scan, in the report's style: one HTML file that loads nothing."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rayprune.tracking.record import write_atomic
from rayprune.tracking.report.page import assemble, section, tile_list


def write_sensitivity_page(result: Mapping[str, Any], out: Path) -> Path:
    """Write the page of what `rayprune.rllib.commands.sensitivity.scan_sensitivity` returns."""
    write_atomic(out, render_sensitivity(result))
    return out


def render_sensitivity(result: Mapping[str, Any]) -> str:
    """Return the page's HTML."""
    place = Path(result["checkpoint"])
    name = place.parents[1].name if place.parent.name == "checkpoints" else place.name
    title = f"Sensitivity of {name}"
    settings = result["settings"]
    about = (
        f"{result['algorithm']} on {result['env']}: each layer alone pruned by "
        f"{settings['criterion']}, granularity {settings['granularity']}, and measured on "
        f"{settings['episodes']} validation episodes."
    )
    header = f"<header><h1>{html.escape(title)}</h1><p>{html.escape(about)}</p></header>"
    kinds = {layer["measured_by"] for layer in result["layers"]}
    parts = [header, tile_list(_tiles(result))]
    parts += [section(*one) for kind, one in _SECTIONS if kind is None or kind in kinds]
    parts.append(_table(result["layers"], settings["sparsities"]))
    return assemble(title, "\n".join(parts), dict(result), "rayprune sensitivity")


_SECTIONS = (
    (
        "return",
        (
            "ladder",
            "Return with one layer pruned",
            "Dots are IQMs with their 95 % interval over episodes. Whether a loss is tolerated is "
            "decided by the paired loss on the same seeds, which hovering shows: its interval is "
            "narrower than the two returns' own.",
            [("ladder", "return")],
        ),
    ),
    (
        "value_error",
        (
            "values",
            "Value error with one layer pruned",
            "The value network doesn't change what the policy does, so its layers are judged by "
            "how far the values move: the mean square change over the values' variance, drawn up "
            "to 100 %.",
            [("ladder", "value_error")],
        ),
    ),
    (
        None,
        (
            "suggested",
            "Suggested sparsity per layer",
            "The highest that stays within the tolerated loss when a layer is pruned alone, scaled "
            "to the target where one was given. All of them together may lose more.",
            [("suggested", "suggested")],
        ),
    ),
)


def _tiles(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    suggested = result["suggested"]
    unpruned, together = result["unpruned"], suggested["together"]
    tolerance = f"{100 * result['settings']['tolerance']:g} % loss tolerated"
    found = [
        ("Unpruned return", unpruned["iqm"], _range(unpruned["ci95"]), "return"),
        ("Floor", result["floor"], tolerance, "return"),
        ("Suggested sparsity", suggested["sparsity"], "of the prunable weights", "percent"),
        ("All suggested at once", together["iqm"], _range(together["ci95"]), "return"),
    ]
    return [dict(zip(("name", "value", "note", "form"), one, strict=True)) for one in found]


def _range(ends: Sequence[float]) -> str:
    return f"95 % interval {ends[0]:,.1f} to {ends[1]:,.1f}"


def _table(layers: Sequence[Mapping[str, Any]], sparsities: Sequence[float]) -> str:
    names = ["layer", "weights", "judged by", "now", "suggested"]
    names += [f"at {100 * sparsity:g} %" for sparsity in sparsities]
    head = "".join(
        f'<th scope="col" aria-sort="none"{" class=num" if n not in (0, 2) else ""}>'
        f'<button type="button">{name}</button></th>'
        for n, name in enumerate(names)
    )
    body = "".join(f"<tr>{_row(layer)}</tr>" for layer in layers)
    return (
        '<section id="layers" class="wide" aria-labelledby="layers-h">'
        '<h2 id="layers-h">All layers</h2>'
        '<p class="note">Rungs show the return (IQM), or the unexplained variance of the values. '
        'A click on a heading sorts. <button type="button" id="copy">Copy as Markdown</button> '
        '<span id="copied" role="status"></span></p>'
        '<div class="scroll" tabindex="0" role="region" aria-labelledby="layers-h">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></section>"
    )


def _row(layer: Mapping[str, Any]) -> str:
    by_return = layer["measured_by"] == "return"
    key, form = ("iqm", "{:,.1f}") if by_return else ("value_unexplained", "{:.1%}")
    cells = [
        _cell(layer["name"], layer["name"], numeric=False),
        _cell(layer["total"], f"{layer['total']:,}"),
        _cell(layer["measured_by"], layer["measured_by"].replace("_", " "), numeric=False),
        _cell(layer["sparsity_now"], _percent(layer["sparsity_now"])),
        _cell(layer["suggested"], _percent(layer["suggested"])),
    ]
    for rung in layer["ladder"]:
        value = rung[key]
        text = "-" if value is None else form.format(value).replace("%", " %")
        if not by_return and value is not None and value > 10:
            text = "> 1000 %"  # how far off a useless critic is says nothing
        cells.append(_cell(value, text))
    return "".join(cells)


def _cell(value: object, text: str, *, numeric: bool = True) -> str:
    key = "" if value is None else html.escape(str(value))
    return f'<td data-value="{key}"{" class=num" if numeric else ""}>{html.escape(text)}</td>'


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"
