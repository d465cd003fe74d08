"""``rayprune train``: one run, from a YAML file to a run directory."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from rayprune.cli.options import (
    Address,
    AsJson,
    Debug,
    Overrides,
    Seed,
    Verbose,
    check_early,
    in_detail,
    load_rllib,
    person,
    tell,
)
from rayprune.storage.urls import join, url_of


def train(
    config: Annotated[
        Path,
        typer.Argument(
            metavar="CONFIG",
            help="A YAML file, or a preset of `rayprune list configs`.",
            show_default=False,
        ),
    ],
    overrides: Overrides = None,
    seed: Seed = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR|URL",
            help="The run's directory, or s3://BUCKET/NAME; default: runs/NAME-seedN.",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint in the directory.")
    ] = False,
    address: Address = None,
    verbose: Verbose = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> dict[str, Any]:
    """Train a policy while it is pruned, evaluate it, and write the run's directory.

    Example: rayprune train ppo_cartpole --set pruning.sparsity=0.8 --seed 1
    """
    check_early(config, out)
    load_rllib()
    from rayprune.cli.printing.tables import sensor_lines, summary_table
    from rayprune.cli.printing.terminal_reporter import TerminalReporter
    from rayprune.rllib.experiment.experiment_checks import load_checked
    from rayprune.rllib.training.train import run_training
    from rayprune.run_recipe import recipe_line

    experiment = load_checked(config, overrides or (), seed)
    reporter = TerminalReporter(person())
    if told := recipe_line({**experiment.model_dump(), "pruning": experiment.pruning.to_dict()}):
        reporter.message(told)
    out = out or Path("runs") / f"{experiment.name}-seed{experiment.seed}"
    try:
        with in_detail(reporter.message, wanted=verbose):
            summary: dict[str, Any] = run_training(
                experiment, out, resume=resume, address=address, reporter=reporter
            )
    finally:
        reporter.close()
    if not as_json:
        checkpoint = join(out, str(summary["checkpoint"]))
        tell(
            summary_table(summary, "dense", "pruned"),
            *sensor_lines(summary),
            f"Run directory  {url_of(out) or out}",
            f"Checkpoint     {checkpoint}",
            f"Next           rayprune evaluate {shlex.quote(checkpoint)}",
        )
    return summary
