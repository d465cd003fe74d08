"""``rayprune sweep``: a population, from a YAML file to a Pareto front."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rayprune.cli.options import (
    Address,
    AsJson,
    Debug,
    Overrides,
    person,
    quiet_rllib,
    require_rllib,
)


def sweep(
    config: Annotated[
        Path,
        typer.Argument(
            metavar="CONFIG", help="A YAML file with a `search` block.", show_default=False
        ),
    ],
    overrides: Overrides = None,
    seed: Annotated[
        int | None, typer.Option(help="Replace the file's seed.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The sweep's directory; default: runs/NAME-seedN."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the population in the directory.")
    ] = False,
    address: Address = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> dict[str, Any]:
    """Search a population over sparsity, criterion and any other key; end with a Pareto front.

    Example: rayprune sweep tune_configs/pbt_cartpole.yaml --set search.population=16
    """
    from rayprune import yaml12

    # A file that isn't there or isn't YAML is told before Ray's import, which takes seconds.
    yaml12.read_mapping(config)
    require_rllib()
    quiet_rllib()
    from rayprune.cli.population import PopulationReporter, front_table
    from rayprune.search.plan import load_sweep
    from rayprune.search.sweep import REPORT_FILE, run_sweep

    raw = load_sweep(config, overrides or (), seed)
    out = out or Path("runs") / f"{raw['name']}-seed{raw.get('seed', 0)}"
    console = person()
    reporter = PopulationReporter(console)
    try:
        outcome: dict[str, Any] = run_sweep(
            raw, out, resume=resume, address=address, reporter=reporter
        )
    finally:
        reporter.close()
    if not as_json:
        console.print(front_table(outcome["front"], outcome["dense_return"]))
        console.print(f"Sweep directory  {out}\nReport           {out / REPORT_FILE}", markup=False)
        points = outcome["front"]["points"]
        if points:
            checkpoint = out / points[-1]["checkpoint"]
            console.print(f"Next             rayprune evaluate {checkpoint}", markup=False)
    return outcome
