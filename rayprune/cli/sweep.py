"""``rayprune sweep``: a population, from a YAML file to a Pareto front."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from rayprune.cli import completion
from rayprune.cli.options import (
    Address,
    AsJson,
    Debug,
    Overrides,
    Seed,
    check_early,
    load_rllib,
    person,
    tell,
)
from rayprune.errors import InputError
from rayprune.storage.urls import join, url_of


def sweep(
    config: Annotated[
        Path,
        typer.Argument(
            metavar="CONFIG",
            autocompletion=completion.configs,
            help="A YAML file with a `search` block, or a preset.",
            show_default=False,
        ),
    ],
    overrides: Overrides = None,
    seed: Seed = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR|URL",
            help="The sweep's directory, or s3://BUCKET/NAME; default: runs/NAME-seedN.",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the population in the directory.")
    ] = False,
    plan: Annotated[
        bool,
        typer.Option("--plan", help="Only tell what fits at once and how long it would take."),
    ] = False,
    nodes: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COUNTxCPUS[+GPUS]",
            help="With --plan: nodes of a cluster that isn't there, such as 100x16+1; repeatable.",
        ),
    ] = None,
    address: Address = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> dict[str, Any]:
    """Search a population over sparsity, criterion and any other key; end with a Pareto front.

    Example: rayprune sweep pbt_cartpole --set search.population=16
    """
    check_early(config, out)
    load_rllib()
    from rayprune.cli.printing.population import PopulationReporter, front_table
    from rayprune.search.sweep import REPORT_FILE, run_sweep
    from rayprune.search.sweep_spec import load_sweep

    _check_options(plan, nodes, resume)
    raw = load_sweep(config, overrides or (), seed)
    if plan:
        return _planned(raw, address, nodes, as_json)
    out = out or Path("runs") / f"{raw['name']}-seed{raw.get('seed', 0)}"
    reporter = PopulationReporter(person())
    try:
        outcome: dict[str, Any] = run_sweep(
            raw, out, resume=resume, address=address, reporter=reporter
        )
    finally:
        reporter.close()
    if not as_json:
        tell(
            front_table(outcome["front"], outcome["dense_return"]),
            f"Sweep directory  {url_of(out) or out}",
            f"Report           {join(out, REPORT_FILE)}",
        )
        points = outcome["front"]["points"]
        if points:
            checkpoint = shlex.quote(join(out, points[-1]["checkpoint"]))
            tell(f"Next             rayprune evaluate {checkpoint}")
    return outcome


def _check_options(plan: bool, nodes: list[str] | None, resume: bool) -> None:
    if nodes and not plan:
        raise InputError("`--nodes` describes a cluster that isn't there: use it with --plan.")
    if plan and resume:
        raise InputError("`--plan` runs nothing that `--resume` could go on with: drop either.")


def _planned(
    raw: dict[str, Any], address: str | None, nodes: list[str] | None, as_json: bool
) -> dict[str, Any]:
    from rayprune.cli.printing.plan_lines import plan_lines
    from rayprune.search.planning.nodes import parse_nodes
    from rayprune.search.planning.sweep_plan import plan_sweep

    cluster = parse_nodes(nodes) if nodes else None
    told = plan_sweep(raw, address=address, nodes=cluster)
    if not as_json:
        tell(*plan_lines(told))
    return told
