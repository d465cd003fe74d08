"""``rayprune sensitivity``: how much each layer of a policy can be pruned."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rayprune.cli import completion
from rayprune.cli.options import (
    AsJson,
    Checkpoint,
    Debug,
    load_rllib,
    person,
    require_checkpoint,
    run_name,
    tell,
)
from rayprune.cli.printing.scan_tables import TerminalScanReporter, scan_table
from rayprune.errors import ConfigError


def sensitivity(
    checkpoint: Checkpoint,
    sparsities: Annotated[
        str, typer.Option(metavar="LIST", help="The ladder, rising, separated by commas.")
    ] = "0.5,0.7,0.8,0.9,0.95",
    criterion: Annotated[
        str, typer.Option(help="See `rayprune list criteria`.", autocompletion=completion.criteria)
    ] = "l1",
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
    load_rllib()
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
    out = out or Path("runs") / f"{run_name(checkpoint)}-sensitivity"
    with TerminalScanReporter(person()) as reporter:
        result: dict[str, Any] = scan_sensitivity(
            checkpoint, options, out, resume=resume, reporter=reporter
        )
    if not as_json:
        tell(
            scan_table(result),
            f"Page           {out / 'sensitivity.html'}",
            f"Next           rayprune train CONFIG --set "
            f'"pruning.distribution=$(cat {out / "suggested.yaml"})"',
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
