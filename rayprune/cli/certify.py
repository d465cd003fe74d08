"""``rayprune certify``: a gate for releases."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table

from rayprune.cli.options import (
    AsJson,
    Debug,
    person,
    quiet_rllib,
    require_checkpoint,
    require_rllib,
)
from rayprune.cli.printing.tables import percent
from rayprune.cli.printing.terminal_reporter import SECONDS_BETWEEN_LINES, number


def certify(
    dense: Annotated[
        Path, typer.Argument(metavar="DENSE", help="The reference.", show_default=False)
    ],
    pruned: Annotated[
        Path, typer.Argument(metavar="PRUNED", help="What is to be shown.", show_default=False)
    ],
    margin: Annotated[
        float, typer.Option(help="What the mean return may lose, as a share of the dense one.")
    ] = 0.05,
    absolute: Annotated[
        bool, typer.Option("--absolute", help="Margins are in the returns' units instead.")
    ] = False,
    tail: Annotated[
        float, typer.Option(help="The share of worst episodes whose mean is tested, too.")
    ] = 0.25,
    tail_margin: Annotated[
        float | None,
        typer.Option(help="What that mean may lose; default: twice --margin.", show_default=False),
    ] = None,
    confidence: Annotated[
        float, typer.Option(help="One minus the chance of certifying wrongly.")
    ] = 0.95,
    episodes: Annotated[
        int, typer.Option(min=1, help="Pairs of episodes at most; it stops once decided.")
    ] = 1000,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="First seed; default: the run's own test seeds."),
    ] = None,
    return_range: Annotated[
        tuple[float, float] | None,
        typer.Option(
            metavar="LOW HIGH",
            help="Between which any return lies; default: known of the environment, or a pilot's.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Default: runs/NAME-certificate.")
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> dict[str, Any]:
    """Test that a pruned policy is as good as the dense one, but for a margin.

    Either is a checkpoint, a run's directory, or an exported file.

    Both play the same seeds until it is decided. Exit code 0: certified. 1: inferior, or undecided
    after --episodes. 2: wrong input.

    Example: rayprune certify runs/ppo_cartpole-seed0/dense runs/ppo_cartpole-seed0 --margin 0.05
    """
    dense, pruned = require_checkpoint(dense), require_checkpoint(pruned)
    require_rllib()
    quiet_rllib()
    from rayprune.rllib.commands.certify import PAGE_FILE, CertifyOptions
    from rayprune.rllib.commands.certify import certify as run

    options = CertifyOptions(
        margin=margin,
        absolute=absolute,
        tail=tail,
        tail_margin=tail_margin,
        confidence=confidence,
        episodes=episodes,
        seed=seed,
        return_range=return_range,
    )
    console = person()
    out = out or Path("runs") / f"{_name(pruned)}-certificate"
    with TerminalCertifyReporter(console) as reporter:
        result: dict[str, Any] = run(dense, pruned, options, out, reporter)
    if not as_json:
        console.print(certificate_table(result))
        for line in certificate_lines(result):
            console.print(line, markup=False)
        console.print(f"Page           {out / PAGE_FILE}", markup=False)
    return result


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


class TerminalCertifyReporter:
    """A `CertifyReporter` for people: a live line, or plain lines off a terminal.

    Args:
        console: where to write; whether it is a terminal decides the form.
        clock: seconds, monotonic; tests give their own.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._most, self._last_line = 0, -math.inf

    def start(self, most: int) -> None:
        """See `CertifyReporter.start`."""
        self._most = most
        if self._console.is_terminal:
            columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
            self._progress = Progress(*columns, console=self._console)
            self._task = self._progress.add_task("the first round", total=most)
            self._progress.start()

    def round(self, pairs: int, result: Mapping[str, Any]) -> None:
        """See `CertifyReporter.round`."""
        mean, tail = result["mean"], result["tail"]
        text = (
            f"dense {number(mean['dense'])}, pruned {number(mean['pruned'])}; p of the mean "
            f"{mean['p']:.2g}, of the tail {tail['p']:.2g}"
        )
        if self._progress is not None:
            self._progress.update(self._task, completed=pairs, description=text)
        elif self._clock() - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = self._clock()
            self._console.print(f"{pairs} of at most {self._most} pairs: {text}", markup=False)

    def __enter__(self) -> TerminalCertifyReporter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()


def _margin(margin: float | None, absolute: bool) -> str:
    if margin is None:
        return "-"
    return number(margin) if absolute else percent(margin)


def _name(checkpoint: Path) -> str:
    """Return what a policy is called: its run, for those in a run's ``checkpoints/``."""
    place = checkpoint.resolve()
    if place.is_file():
        return place.stem
    return place.parents[1].name if place.parent.name == "checkpoints" else place.name
