"""The page of a bench, in the report's style: one HTML file that loads nothing."""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rayprune.tracking.record import storage_error, to_json, write_atomic
from rayprune.tracking.report.page import assemble, section

PAGE_FILE = "bench.html"
RESULT_FILE = "bench.json"

_ABOUT = (
    "Median time of a call on a logarithmic axis; the tick is the 99th percentile. What pruning "
    "gains is the difference between dense and pruned in the same runtime; the rest is the "
    "export's."
)


def write_bench(result: Mapping[str, Any], out: Path) -> Path:
    """Write ``bench.json`` and ``bench.html``; return the page's path.

    Args:
        result: what `rayprune.rllib.commands.bench.bench` returned.
        out: a folder, which is made.

    Raises:
        StorageError: it can't be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, out) from error
    write_atomic(out / RESULT_FILE, to_json(result, indent=2) + "\n")
    write_atomic(out / PAGE_FILE, render_bench(result))
    return out / PAGE_FILE


def render_bench(result: Mapping[str, Any]) -> str:
    """Return the page's HTML."""
    machine = result["machine"]
    names = ", ".join(target["target"] for target in result["targets"])
    about = f"{machine['cpu']}, {machine['cores']} cores. {names}"
    places = dict.fromkeys((row["threads"], row["batch"]) for row in result["rows"])
    charts = [("latency", f"batch {batch}, {threads} thread(s)") for threads, batch in places]
    parts = [
        f"<header><h1>Latency</h1><p>{html.escape(about)}</p></header>",
        section("latency", "Time of a call", _ABOUT, charts),
        _table(result),
        _notes(result),
    ]
    return assemble("Latency", "\n".join(parts), dict(result), "rayprune bench")


def _table(result: Mapping[str, Any]) -> str:
    names = ["target", "policy", "runtime", "threads", "batch", "median µs", "p99 µs", "missed"]
    names += ["against same runtime", "against forward_inference", "file bytes", "peak bytes"]
    head = "".join(
        f'<th scope="col" aria-sort="none"{" class=num" if n > 2 else ""}>'
        f'<button type="button">{name}</button></th>'
        for n, name in enumerate(names)
    )
    body = "".join(f"<tr>{_row(row)}</tr>" for row in result["rows"])
    return (
        '<section id="runs" class="wide" aria-labelledby="runs-h"><h2 id="runs-h">All figures</h2>'
        '<p class="note">A click on a heading sorts. '
        '<button type="button" id="copy">Copy as Markdown</button> '
        '<span id="copied" role="status"></span></p>'
        '<div class="scroll" tabindex="0" role="region" aria-labelledby="runs-h">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></section>"
    )


def _row(row: Mapping[str, Any]) -> str:
    ratios = [row["speed_up"][key] for key in ("same_runtime", "forward_inference")]
    values = [row[key] for key in ("target", "policy", "runtime", "threads", "batch")]
    texts = [str(value) for value in values]
    for value, form in (
        (row["median_us"], "{:,.1f}"),
        (row["p99_us"], "{:,.1f}"),
        (row["missed"], "{:.1%}"),
        *((None if one is None else one["ratio"], "{:.2f}") for one in ratios),
        (row["file_bytes"], "{:,}"),
        (row["peak_memory_bytes"], "{:,}"),
    ):
        values.append(value)
        texts.append("-" if value is None else form.format(value).replace("%", " %"))
    return "".join(
        f'<td data-value="{"" if value is None else html.escape(str(value))}"'
        f"{' class=num' if n > 2 else ''}>{html.escape(text)}</td>"
        for n, (text, value) in enumerate(zip(texts, values, strict=True))
    )


def _notes(result: Mapping[str, Any]) -> str:
    notes = dict.fromkeys(note for target in result["targets"] for note in target["notes"])
    if not notes:
        return ""
    items = "".join(f"<li>{html.escape(note)}</li>" for note in notes)
    return (
        '<section id="notes" class="wide" aria-labelledby="notes-h">'
        f'<h2 id="notes-h">What to know</h2><ul>{items}</ul></section>'
    )
