"""``rayprune sensitivity``: how much each layer of a policy can be pruned."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from rayprune.cli.options import (
    AsJson,
    Checkpoint,
    Debug,
    person,
    quiet_rllib,
    require_checkpoint,
    require_rllib,
)
from rayprune.cli.printing.tables import interval, percent
from rayprune.cli.printing.terminal_reporter import SECONDS_BETWEEN_LINES, duration, number
from rayprune.errors import ConfigError


def sensitivity(
    checkpoint: Checkpoint,
    sparsities: Annotated[
        str, typer.Option(metavar="LIST", help="The ladder, rising, separated by commas.")
    ] = "0.5,0.7,0.8,0.9,0.95",
    criterion: Annotated[str, typer.Option(help="See `rayprune list criteria`.")] = "l1",
    granularity: Annotated[str, typer.Option(help="See `rayprune list granularities`.")] = "weight",
    layers: Annotated[
        list[str] | None,
        typer.Option(metavar="GLOB", help="Scan these layers alone; may be given repeatedly."),
    ] = None,
    episodes: Annotated[int, typer.Option(min=1, help="Episodes at each point.")] = 20,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="First seed; default: the run's own validation seeds."),
    ] = None,
    tolerance: Annotated[
        float, typer.Option(help="Loss that is tolerated, as a share of the unpruned return.")
    ] = 0.05,
    target: Annotated[
        float | None,
        typer.Option(help="Scale the suggestion to this sparsity of all prunable weights."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Default: runs/NAME-sensitivity."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted scan in the directory.")
    ] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> dict[str, Any]:
    """Measure the return with each layer alone pruned, and suggest a sparsity for each.

    Example: rayprune sensitivity runs/ppo_cartpole-seed0/dense --target 0.9
    """
    ladder = parse_sparsities(sparsities)
    checkpoint = require_checkpoint(checkpoint)
    require_rllib()
    quiet_rllib()
    from rayprune.rllib.commands.sensitivity import ScanOptions, scan_sensitivity

    options = ScanOptions(
        sparsities=ladder,
        criterion=criterion,
        granularity=granularity,
        episodes=episodes,
        seed=seed,
        tolerance=tolerance,
        layers=tuple(layers or ()),
        target=target,
    )
    console = person()
    out = out or Path("runs") / f"{_name(checkpoint)}-sensitivity"
    with TerminalScanReporter(console) as reporter:
        result: dict[str, Any] = scan_sensitivity(
            checkpoint, options, out, resume=resume, reporter=reporter
        )
    if not as_json:
        console.print(scan_table(result))
        console.print(
            f"Page           {out / 'sensitivity.html'}\n"
            f"Next           rayprune train CONFIG --set "
            f'"pruning.distribution=$(cat {out / "suggested.yaml"})"',
            markup=False,
        )
    return result


def parse_sparsities(text: str) -> tuple[float, ...]:
    """Return the numbers of a list that commas separate.

    Raises:
        ConfigError: one isn't a number.

    >>> parse_sparsities("0.5, 0.9")
    (0.5, 0.9)
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(
            f"`--sparsities` must be numbers separated by commas, such as 0.5,0.9, but is {text!r}."
        ) from error


def scan_table(result: Mapping[str, Any]) -> Table:
    """Return what a person reads when a scan is done."""
    suggested = result["suggested"]
    table = Table(title="Sensitivity", title_justify="left", box=None, pad_edge=False)
    for name in ("layer", "judged by", "suggested", "at its last rung"):
        left = name in ("layer", "judged by")
        table.add_column(name, justify="left" if left else "right", overflow="fold")
    for layer in result["layers"]:
        last, by_return = layer["ladder"][-1], layer["measured_by"] == "return"
        shown = interval(last) if by_return else f"{_unexplained(last)} unexplained"
        split = suggested["distribution"][layer["name"]]
        table.add_row(layer["name"], layer["measured_by"].replace("_", " "), percent(split), shown)
    table.caption_justify = "left"
    table.caption = (
        f"unpruned {interval(result['unpruned'])}; all suggested at once, "
        f"{percent(suggested['sparsity'])} sparse: {interval(suggested['together'])}"
    )
    return table


class TerminalScanReporter:
    """A `ScanReporter` for people: a live line, or plain lines off a terminal.

    Args:
        console: where to write; whether it is a terminal decides the form.
        clock: seconds, monotonic; tests give their own.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._total = self._done = self._first = 0
        self._began, self._last_line = 0.0, -math.inf

    def start(self, total: int, done: int) -> None:
        """See `ScanReporter.start`."""
        self._total, self._done, self._first = total, done, done
        self._began = self._clock()
        if self._console.is_terminal:
            self._progress = Progress(
                TextColumn("{task.completed:.0f}/{task.total:.0f}  {task.description}"),
                TimeRemainingColumn(compact=True),
                console=self._console,
            )
            self._task = self._progress.add_task("sensitivity", total=total, completed=done)
            self._progress.start()

    def point(self, row: Mapping[str, Any]) -> None:
        """See `ScanReporter.point`."""
        self._done += 1
        text = _told(row)
        if self._progress is not None:
            self._progress.update(self._task, completed=self._done, description=text)
        elif self._clock() - self._last_line >= SECONDS_BETWEEN_LINES or self._done == self._total:
            self._last_line = self._clock()
            each = (self._clock() - self._began) / (self._done - self._first)
            left = duration(each * (self._total - self._done))
            self._console.print(f"{self._done}/{self._total}  {text}  {left} left", markup=False)

    def __enter__(self) -> TerminalScanReporter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()


def _told(row: Mapping[str, Any]) -> str:
    name = "all suggested" if row["sparsity"] is None else row["layer"]
    at = percent(row["reached"] if row["sparsity"] is None else row["sparsity"])
    if row["iqm"] is None:
        return f"{name} at {at}: {_unexplained(row)} of the values unexplained"
    return f"{name} at {at}: return {number(row['iqm'])}"


def _unexplained(row: Mapping[str, Any]) -> str:
    value = row["value_unexplained"]
    return "> 1000 %" if value is not None and value > 10 else percent(value)


def _name(checkpoint: Path) -> str:
    """Return what a checkpoint is called: its run, for those in a run's ``checkpoints/``."""
    place = checkpoint.resolve()
    return place.parents[1].name if place.parent.name == "checkpoints" else place.name
