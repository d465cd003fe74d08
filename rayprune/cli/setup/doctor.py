"""``rayprune doctor``: whether what runs need is here, and what to do about what isn't."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final

import typer
from rich.table import Table
from rich.text import Text

from rayprune.cli.options import AsJson, Debug, tell
from rayprune.cli.setup.check import ABSENT, BROKEN, DOUBTFUL, OK, Check
from rayprune.cli.setup.machine_checks import machine_checks
from rayprune.cli.setup.packages import package_checks
from rayprune.extras import pip_line

SCHEMA: Final = 1
_MARKS: Final = {OK: "ok", ABSENT: "-", DOUBTFUL: "!", BROKEN: "BROKEN"}
_STYLES: Final = {OK: "green", ABSENT: "dim", DOUBTFUL: "yellow", BROKEN: "bold red"}


def doctor(
    address: Annotated[
        str | None,
        typer.Option(metavar="ADDR", help="A Ray cluster that runs are meant for: does it answer?"),
    ] = None,
    start_ray: Annotated[
        bool,
        typer.Option("--start-ray", help="Start Ray here for a moment, and tell its resources."),
    ] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> dict[str, Any]:
    """Look over what runs need here: packages, extras, GPU, Ray, W&B, compilers, disk.

    Exit code 0: a default run has all that it needs. 1: it lacks something, which is told with the
    way out. Nothing is started, unless you ask for it, and nothing is sent anywhere.

    Example: rayprune doctor
    """
    checks = [*package_checks(), *machine_checks(address, start_ray=start_ray)]
    broken = [check for check in checks if check.status == BROKEN]
    if not as_json:
        tell(_table(checks), _verdict(checks))
    return {
        "schema": SCHEMA,
        "healthy": not broken,
        "checks": [check.to_dict() for check in checks],
        "exit_code": 1 if broken else 0,
    }


def _table(checks: Sequence[Check]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("", "what"):
        table.add_column(name, no_wrap=True)
    for name in ("found", "way out"):
        table.add_column(name, overflow="fold")
    for check in checks:
        # As texts: rich would take [deploy] in a string for a style.
        mark = Text(_MARKS[check.status], style=_STYLES[check.status])
        table.add_row(mark, *map(Text, (check.name, check.found, check.way_out)))
    return table


def _verdict(checks: Sequence[Check]) -> str:
    names = {
        status: [check.name for check in checks if check.status == status]
        for status in (BROKEN, DOUBTFUL, ABSENT)
    }
    if names[BROKEN]:
        return f"A default run lacks: {', '.join(names[BROKEN])}."
    told = "A default run has all that it needs."
    if names[DOUBTFUL]:
        told += f" Look at: {', '.join(names[DOUBTFUL])}."
    extras = [check for check in checks if check.part == "extras" and check.status == ABSENT]
    if extras:
        names_of = ",".join(check.name.removeprefix("rayprune[").rstrip("]") for check in extras)
        told += f" All extras that aren't here: {pip_line(names_of)}."
    return told
