"""The page of a certificate, in the report's style: one HTML file that loads nothing."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rayprune.tracking.record import write_atomic
from rayprune.tracking.report.page import assemble, section, tile_list

_ROWS = (("mean", "mean return"), ("tail", "mean of the worst episodes"))


def write_certificate_page(
    result: Mapping[str, Any], pairs: Sequence[Mapping[str, Any]], out: Path
) -> Path:
    """Write the page of what `rayprune.rllib.commands.certify.certify` returns.

    Args:
        result: the certificate.
        pairs: what came of each seed.
        out: the page's file.
    """
    write_atomic(out, render_certificate(result, pairs))
    return out


def render_certificate(result: Mapping[str, Any], pairs: Sequence[Mapping[str, Any]]) -> str:
    """Return the page's HTML."""
    title = f"{result['verdict'].capitalize()}: pruned against dense on {result['env']}"
    parts = [
        f"<header><h1>{html.escape(title)}</h1><p>{html.escape(result['reason'])}</p></header>",
        tile_list(_tiles(result)),
        *evidence_sections(),
        _table(result),
        _policies(result),
    ]
    return assemble(title, "\n".join(parts), chart_data(result, pairs), "rayprune certify")


def evidence_sections() -> list[str]:
    """Return the sections of a certificate's charts."""
    return [
        section("evidence", "Evidence", _ABOUT_EVIDENCE, [("evidence", "evidence")]),
        section("pairs", "Returns, seed by seed", _ABOUT_PAIRS, [("pairs", "pairs")]),
    ]


def chart_data(result: Mapping[str, Any], pairs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what a certificate's charts are drawn from."""
    return {**result, "played": list(pairs)}


_ABOUT_EVIDENCE = (
    "What a gambler would have made of 1 by betting that the loss is within its margin, at odds "
    "that are fair if it is not. To have ever reached the dashed line is as unlikely as the "
    "confidence says, however often one looks."
)
_ABOUT_PAIRS = (
    "Each point is a seed that both policies played. Below the diagonal the pruned policy earned "
    "less."
)


def _tiles(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    settings, mean = result["settings"], result["mean"]
    close, divergence = result["closeness"], result["divergence"]
    confidence = f"at {100 * settings['confidence']:g} % confidence"
    tiles: list[dict[str, Any]] = [
        {"name": "Verdict", "value": result["verdict"], "note": confidence, "form": "text"},
        {
            "name": "Mean return, pruned",
            "value": mean["pruned"],
            "note": f"dense {mean['dense']:,.1f}, margin {mean['margin']:,.1f}",
            "form": "return",
        },
        {
            "name": "Pairs of episodes",
            "value": result["pairs"],
            "note": f"at most {settings['episodes']:,}",
            "form": "count",
        },
    ]
    if close["agreement"] is not None:
        note = f"on {close['states']:,} states of the dense policy"
        tiles.append(
            {"name": "Same actions", "value": close["agreement"], "note": note, "form": "percent"}
        )
    first = (
        "-" if divergence["median"] is None else f"half of them by step {divergence['median']:,g}"
    )
    tiles.append(
        {
            "name": "Episodes that part",
            "value": divergence["diverged"],
            "note": first,
            "form": "percent",
        }
    )
    return tiles


def _table(result: Mapping[str, Any]) -> str:
    names = [
        "figure",
        "dense",
        "pruned",
        "difference",
        "margin",
        "least margin shown",
        "p",
        "shown at",
    ]
    head = "".join(
        f'<th scope="col" aria-sort="none"{" class=num" if n else ""}>'
        f'<button type="button">{name}</button></th>'
        for n, name in enumerate(names)
    )
    body = "".join(f"<tr>{_row(result, key, name)}</tr>" for key, name in _ROWS)
    settings, bounds = result["settings"], result["range"]
    about = (
        f"The worst {100 * settings['tail']:g} % of episodes. Returns lie in "
        f"[{bounds['low']:,.1f}, {bounds['high']:,.1f}] ({bounds['source']}). The least margin is "
        "what these episodes would have shown: a bound on the loss."
    )
    return (
        '<section id="questions" class="wide" aria-labelledby="questions-h">'
        f'<h2 id="questions-h">Both questions</h2><p class="note">{html.escape(about)} '
        '<button type="button" id="copy">Copy as Markdown</button> '
        '<span id="copied" role="status"></span></p>'
        '<div class="scroll" tabindex="0" role="region" aria-labelledby="questions-h">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></section>"
    )


def _policies(result: Mapping[str, Any]) -> str:
    """Return the table of who was compared."""
    names = ("policy", "name", "SHA-256", "written by", "on")
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    body = "".join(f"<tr>{_identity(part, held)}</tr>" for part, held in result["policies"].items())
    about = (
        f"By the weights' hash of a checkpoint, and the file's of an exported file. Certified by "
        f"rayprune {result['rayprune']}, begun {_day(result['date'])}."
    )
    return (
        '<section id="policies" class="wide" aria-labelledby="policies-h">'
        f'<h2 id="policies-h">Who was compared</h2><p class="note">{html.escape(about)}</p>'
        '<div class="scroll plain" tabindex="0" role="region" aria-labelledby="policies-h">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></section>"
    )


def _identity(part: str, held: Mapping[str, Any]) -> str:
    cells = [html.escape(part), html.escape(str(held["name"]))]
    digest = html.escape(held["sha256"])
    cells.append(f'<code title="{digest}">{digest[:16]}…</code>')
    cells += [html.escape(held["version"] or "-"), html.escape(_day(held["date"]))]
    return "".join(f"<td>{cell}</td>" for cell in cells)


def _day(date: str) -> str:
    """Return a date as people read it.

    >>> _day("2026-11-29T14:22:06+00:00")
    '2026-11-29 14:22 UTC'
    """
    return f"{date[:10]} {date[11:16]} UTC"


def _row(result: Mapping[str, Any], key: str, name: str) -> str:
    figures = result[key]
    cells = [(name, name)]
    cells += [
        (f"{figures[one]:,.1f}", figures[one])
        for one in ("dense", "pruned", "difference", "margin")
    ]
    cells += [
        (
            margin_text(figures["least_margin"], result["settings"]["absolute"]),
            figures["least_margin"],
        ),
        (f"{figures['p']:.2g}", figures["p"]),
        ("-" if figures["shown_at"] is None else str(figures["shown_at"]), figures["shown_at"]),
    ]
    return "".join(
        f'<td data-value="{"" if value is None else html.escape(str(value))}"'
        f"{' class=num' if n else ''}>{html.escape(text)}</td>"
        for n, (text, value) in enumerate(cells)
    )


def margin_text(margin: float | None, absolute: bool) -> str:
    """Return a margin as people read it.

    >>> margin_text(0.031, False), margin_text(12.0, True), margin_text(None, False)
    ('3.1 %', '12.0', 'none')
    """
    if margin is None:
        return "none"
    return f"{margin:,.1f}" if absolute else f"{100 * margin:.1f} %"
