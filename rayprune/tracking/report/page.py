"""The report's page: one HTML file that needs nothing but a browser.

Its charts are drawn by charts.js, which is ours and small, and not by plotly: plotly's script is
4.8 MB a page, draws parallel coordinates with WebGL, keeps its colours when the reader's scheme
changes, shrinks rather than rearranges on a phone, and shows its points to the mouse only.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from rayprune.tracking.record import storage_error, to_json, write_atomic
from rayprune.tracking.report.data import report_data
from rayprune.tracking.report.entries import Data
from rayprune.tracking.report.learning_part import learning_table

_CHANGES = ("kl", "value_change", "greedy_changed")
"""The curves of mask updates; charts.js knows their titles."""
Cell = tuple[str, object]
"""What a cell shows, and what it is sorted by."""


def write_report(paths: Sequence[Path], out: Path) -> Path:
    """Write the comparison of runs and sweeps as one self-contained HTML page.

    Args:
        paths: directories of runs and of sweeps.
        out: the page's file; its folder is made.

    Returns:
        ``out``.

    Raises:
        InputError: a path is neither a run nor a sweep; nothing is written.
    """
    page = render(report_data(paths))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, out.parent) from error
    write_atomic(out, page)
    return out


def render(data: Data) -> str:
    """Return the page for what `report_data` gave."""
    return assemble(title_of(data), _body(data), data, "rayprune report")


def assemble(title: str, body: str, data: Data, command: str) -> str:
    """Return a whole page of ours.

    Args:
        title: what it is about.
        body: the HTML of its sections.
        data: what its charts are drawn from.
        command: who wrote it.
    """
    assets = files(__package__)
    # `</script>` inside the data would end the script element.
    embedded = to_json(data).replace("<", "\\u003c")
    parts = {
        "title": html.escape(title),
        "command": command,
        "style": assets.joinpath("page.css").read_text(encoding="utf-8"),
        "script": assets.joinpath("charts.js").read_text(encoding="utf-8"),
        "data": embedded,
        "body": body,
    }
    page = assets.joinpath("page.html").read_text(encoding="utf-8")
    # In one pass: a run may be called {{data}}.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], page)


def title_of(data: Data) -> str:
    """Return what a comparison is called: the names of its sweeps and experiments."""
    names = [sweep["name"] for sweep in data["sweeps"]]
    names += list(dict.fromkeys(run["config"].get("name") for run in _single_runs(data)))
    shown = ", ".join(str(name) for name in names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown


def _single_runs(data: Data) -> list[Data]:
    return [run for run in data["runs"] if run["sweep"] is None]


def _body(data: Data) -> str:
    return "\n".join([_header(data), tile_list(data["tiles"]), *comparison_sections(data)])


def comparison_sections(data: Data) -> list[str]:
    """Return the sections of a comparison: its charts, and the table of all runs."""
    sections = [
        *(section(*one) for one in _charts(data)),
        _learning(data),
        _table(data["runs"]),
        _failures(data["runs"]),
    ]
    return [section for section in sections if section]


def _header(data: Data) -> str:
    envs = ", ".join(data["envs"])
    algorithms = ", ".join(dict.fromkeys(run["algorithm"] for run in data["runs"]))
    return (
        f"<header><h1>{html.escape(title_of(data))}</h1>"
        f"<p>{html.escape(algorithms)} on {html.escape(envs)}: how sparse, at what return.</p>"
        "</header>"
    )


def tile_list(tiles: Sequence[Data]) -> str:
    """Return the few numbers that come first: each a name, value, note and form."""
    items = "".join(
        f"<div><dt>{html.escape(tile['name'])}</dt><dd><b>{_FORMS[tile['form']](tile['value'])}</b>"
        f"<span>{html.escape(str(tile['note']))}</span></dd></div>"
        for tile in tiles
    )
    return f'<dl class="tiles" aria-label="Summary">{items}</dl>'


def _charts(data: Data) -> list[tuple[str, str, str, list[tuple[str, str]]]]:
    """Return each section's id, heading, explanation, and its charts as (kind, caption)."""
    runs, envs = data["runs"], data["envs"]
    fronts = [env for env in envs if any(front["env"] == env for front in data["fronts"])]
    curves = {
        name: [env for env in envs if any(_has(run, env, name) for run in runs)]
        for name in ("return", "sparsity", *_CHANGES)
    }
    compared = [env for env in envs if any(row["env"] == env for row in data["comparison"])]
    lineages = [sweep["name"] for sweep in data["sweeps"] if sweep["lineage"]]
    sections = [
        (
            "front",
            "Return against sparsity",
            "Filled points joined by a line are the Pareto front: no other policy is both sparser "
            "and better. They are chosen by validation returns; diamonds are the same policies' "
            "test returns, which choose nothing.",
            [("front", env) for env in fronts],
        ),
        (
            "return",
            "Return against step",
            "Lines are the mean return of training episodes. Up to eight runs have dots, too: "
            "validation IQMs with their 95 % interval over episodes.",
            [("return", env) for env in curves["return"]],
        ),
        (
            "sparsity",
            "Sparsity against step",
            "Share of the prunable weights that are zero.",
            [("sparsity", env) for env in curves["sparsity"]],
        ),
        (
            "policy-change",
            "How far mask updates moved the policy",
            "Of each mask update, on the minibatches before it: KL(policy before || policy after) "
            "in nats; mean change of values as a share of their standard deviation; where "
            "Q-values act, the share of other greedy actions. <code>max_kl</code> bounds the "
            "first, <code>max_value_change</code> the second.",
            [(name, env) for name in _CHANGES for env in curves[name]],
        ),
        (
            "compare",
            "Dense against pruned",
            "Test return: IQM with 95 % bootstrap interval, over episodes of one run, or over runs "
            "where several seeds are put together. Hollow is dense, filled is pruned.",
            [("compare", env) for env in compared],
        ),
        (
            "heat",
            "Sparsity per layer",
            "The darker or brighter a cell, the sparser the layer; protected layers are never "
            "pruned.",
            [("heat", heat["of"]) for heat in data["heat"]],
        ),
        (
            "lineage",
            "Lineage",
            "A lane per trial. An arrow is an exploit: the trial at its head went on as a copy of "
            "the one at its tail, with the changes that hovering shows.",
            [("lineage", name) for name in lineages],
        ),
        (
            "choices",
            "What was chosen",
            "Each line is a run: what it was set to, and what it reached. Thick lines are on the "
            "front; colour is the sparsity reached.",
            [("choices", one["source"]) for one in data["choices"]],
        ),
    ]
    return [section for section in sections if section[3]]


def _learning(data: Data) -> str:
    """Return the section on learning: dips over time where masks changed, and the table."""
    if not data["learning"]:
        return ""
    dipped = [
        env for env in data["envs"] if any(r["env"] == env and r["dips"] for r in data["runs"])
    ]
    text = (
        "Steps until the training return first reached a share of the reference (the dense return, "
        "or the peak where there is none), and what mask updates did: a dip goes from the return "
        "before to the lowest before the next update. Filled: back at the return before by then."
    )
    charts = section("learning", "Learning", text, [("dips", env) for env in dipped])
    charts = charts.replace("<section ", '<section class="wide" ', 1)
    return charts.removesuffix("</section>") + learning_table(data["learning"]) + "</section>"


def _has(run: Data, env: str, curve: str) -> bool:
    return bool(run["env"] == env and run["curves"][curve])


def section(name: str, heading: str, text: str, charts: Sequence[tuple[str, str]]) -> str:
    """Return a section of charts.

    Args:
        name: its id.
        heading: its heading.
        text: an explanation.
        charts: each a kind that charts.js knows, and a caption.
    """
    figures = "".join(
        f'<figure data-chart="{kind}" data-index="{index}" data-of="{html.escape(caption)}">'
        + (f"<figcaption>{html.escape(caption)}</figcaption>" if len(charts) > 1 else "")
        + f'<div class="legend"></div><div class="plot" tabindex="0" role="group" '
        f'aria-roledescription="chart" aria-label="{html.escape(f"{heading}, {caption}")}. '
        'Arrow keys go from mark to mark."></div></figure>'
        for index, (kind, caption) in enumerate(charts)
    )
    return (
        f'<section id="{name}" aria-labelledby="{name}-h"><h2 id="{name}-h">{heading}</h2>'
        f'<p class="note">{text}</p>{figures}</section>'
    )


def render_markdown_table(runs: Sequence[Data]) -> str:
    """Return the table of all runs as Markdown."""
    columns = _filled_columns(runs)
    lines = [[name for name, _, _ in columns], ["---:" if n else "---" for _, n, _ in columns]]
    lines += [[cells[n][0] for _, _, cells in columns] for n in range(len(runs))]
    return "\n".join(f"| {' | '.join(_escaped(line))} |" for line in lines)


def _escaped(texts: Sequence[str]) -> list[str]:
    return [text.replace("|", "\\|") for text in texts]


def _filled_columns(runs: Sequence[Data]) -> list[tuple[str, bool, list[Cell]]]:
    filled = [(name, numeric, [cell(run) for run in runs]) for name, numeric, cell in _COLUMNS]
    return [column for column in filled if _tells(column[0], [text for text, _ in column[2]])]


def _table(runs: Sequence[Data]) -> str:
    columns = _filled_columns(runs)
    head = "".join(
        f'<th scope="col" aria-sort="none"{" class=num" if numeric else ""}>'
        f'<button type="button">{html.escape(name)}</button></th>'
        for name, numeric, _ in columns
    )
    body = "".join(
        "<tr>" + "".join(_cell(cells[n], numeric) for _, numeric, cells in columns) + "</tr>"
        for n in range(len(runs))
    )
    return (
        '<section id="runs" class="wide" aria-labelledby="runs-h"><h2 id="runs-h">All runs</h2>'
        '<p class="note">A click on a heading sorts. '
        '<button type="button" id="copy">Copy as Markdown</button> '
        '<span id="copied" role="status"></span></p>'
        '<div class="scroll" tabindex="0" role="region" aria-labelledby="runs-h">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></section>"
    )


def _tells(name: str, texts: Sequence[str]) -> bool:
    """Whether a column says anything: the heading names already what all runs share."""
    if name in ("sweep", "environment", "algorithm"):
        return len(set(texts)) > 1
    return any(texts)


def _cell(cell: Cell, numeric: bool) -> str:
    shown, key = cell
    value = "" if key is None else html.escape(str(key))
    return f'<td data-value="{value}"{" class=num" if numeric else ""}>{html.escape(shown)}</td>'


def _failures(runs: Sequence[Data]) -> str:
    items = "".join(
        f"<li><b>{html.escape(run['label'])}</b>: {html.escape(str(run['error']))}</li>"
        for run in runs
        if run["error"]
    )
    if not items:
        return ""
    return (
        '<section id="failures" class="wide" aria-labelledby="failures-h">'
        f'<h2 id="failures-h">What failed</h2><ul>{items}</ul></section>'
    )


def _count(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}" if value == int(value) else f"{value:,.2f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f}"


def _small(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


_FORMS: Mapping[str, Callable[[Any], str]] = {
    "text": str,
    "count": _count,
    "return": _number,
    "percent": _percent,
}


def _text(key: str) -> Callable[[Data], Cell]:
    return lambda run: ("" if run[key] is None else str(run[key]), run[key])


def _figure(
    key: str, inner: str | None, form: Callable[[float | None], str]
) -> Callable[..., Cell]:
    def cell(run: Data) -> Cell:
        value = (run[key] or {}).get(inner) if inner else run[key]
        return ("" if value is None else form(value), value)

    return cell


def _interval(key: str) -> Callable[[Data], Cell]:
    def cell(run: Data) -> Cell:
        block = run[key]
        if not block:
            return ("", None)
        low, high = block.get("ci95") or (None, None)
        return (f"{_number(block['iqm'])} [{_number(low)}, {_number(high)}]", block["iqm"])

    return cell


def _criterion(run: Data) -> Cell:
    value = run["config"].get("pruning.criterion")
    return (str(value or ""), value)


_COLUMNS: Sequence[tuple[str, bool, Callable[[Data], Cell]]] = (
    ("run", False, _text("label")),
    ("sweep", False, _text("sweep")),
    ("environment", False, _text("env")),
    ("algorithm", False, _text("algorithm")),
    ("seed", True, _text("seed")),
    ("status", False, _text("status")),
    ("criterion", False, _criterion),
    ("sparsity", True, _figure("sparsity", None, _percent)),
    ("validation return", True, _figure("return", None, _number)),
    ("test return, IQM [95 %]", True, _interval("test")),
    ("dense test return, IQM [95 %]", True, _interval("dense_test")),
    ("weights left", True, _figure("parameters", "nonzero", _count)),
    ("FLOPs, dense", True, _figure("flops", "dense", _count)),
    ("FLOPs, sparse", True, _figure("flops", "sparse", _count)),
    ("largest KL of a mask update", True, _figure("mask_updates", "kl", _small)),
    ("largest change of values", True, _figure("mask_updates", "value_change", _small)),
    ("env steps", True, _figure("env_steps", None, _count)),
    ("copied from", False, _text("donor")),
)
