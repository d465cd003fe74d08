"""What people read of a certificate: the episodes as they are played, then the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.table import Table

from rayprune.cli.printing.live_line import LiveLine
from rayprune.cli.printing.tables import percent
from rayprune.cli.printing.terminal_reporter import number


def certificate_table(result: Mapping[str, Any]) -> Table:
    """Return what a person reads when it is decided."""
    table = Table(
        title=f"{result['verdict'].capitalize()} after {result['pairs']} pairs of episodes",
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    table.add_column("")
    for name in ("dense", "pruned", "difference", "margin", "would show", "p"):
        table.add_column(name, justify="right")
    worst = f"mean of the worst {100 * result['settings']['tail']:g} %"
    for key, name in (("mean", "mean return"), ("tail", worst)):
        one = result[key]
        figures = [number(one[part]) for part in ("dense", "pruned", "difference", "margin")]
        least = _margin(one["least_margin"], result["settings"]["absolute"])
        table.add_row(name, *figures, least, f"{one['p']:.2g}")
    table.caption, table.caption_justify = result["reason"], "left"
    return table


def certificate_lines(result: Mapping[str, Any]) -> list[str]:
    """Return what else there is to say: how alike the policies act."""
    close, parted = result["closeness"], result["divergence"]
    lines = []
    if close["agreement"] is not None:
        lines.append(
            f"Same actions   {percent(close['agreement'])} on {close['states']:,} states of the "
            "dense policy"
        )
    if close["action_difference"] is not None:
        lines.append(f"Actions differ by {close['action_difference']:.4g} on average")
    if parted["median"] is not None:
        lines.append(
            f"Episodes part  {percent(parted['diverged'])} of them, half by step "
            f"{parted['median']:g}, the first at {parted['first']}"
        )
    return lines


class TerminalCertifyReporter(LiveLine):
    """A `CertifyReporter` for people: a live line, or plain lines off a terminal."""

    _most = 0

    def start(self, most: int) -> None:
        """See `CertifyReporter.start`."""
        self._most = most
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
        self.begin("the first round", most, 0, *columns)

    def round(self, pairs: int, result: Mapping[str, Any]) -> None:
        """See `CertifyReporter.round`."""
        mean, tail = result["mean"], result["tail"]
        text = (
            f"dense {number(mean['dense'])}, pruned {number(mean['pruned'])}; p of the mean "
            f"{mean['p']:.2g}, of the tail {tail['p']:.2g}"
        )
        self.show(pairs, text, lambda: f"{pairs} of at most {self._most} pairs: {text}")


def _margin(margin: float | None, absolute: bool) -> str:
    if margin is None:
        return "-"
    return number(margin) if absolute else percent(margin)
