"""``rayprune train``: one run, from a YAML file to a run directory."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rayprune.cli import completion
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

if TYPE_CHECKING:
    from rayprune.config import ExperimentConfig


def train(
    config: Annotated[
        Path,
        typer.Argument(
            metavar="CONFIG",
            autocompletion=completion.configs,
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
    plan: Annotated[
        bool, typer.Option("--plan", help="Only check the file, and tell what would run.")
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
    out = out or Path("runs") / f"{experiment.name}-seed{experiment.seed}"
    if plan:
        return _planned(experiment, out, as_json=as_json)
    reporter = TerminalReporter(person())
    if told := recipe_line({**experiment.model_dump(), "pruning": experiment.pruning.to_dict()}):
        reporter.message(told)
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


def _planned(experiment: ExperimentConfig, out: Path, *, as_json: bool) -> dict[str, Any]:
    """Return what a run would be, of an experiment without faults; nothing is started."""
    dated, length = experiment.dated_pruning, experiment.length
    unit = "updates" if experiment.offline else "env steps"
    every = experiment.evaluation.every
    told: dict[str, Any] = {
        "name": experiment.name,
        "algorithm": experiment.algorithm,
        "env": experiment.env,
        "seed": experiment.seed,
        "length": length,
        "unit": unit,
        "sparsity": dated.target,
        "criterion": dated.criterion,
        "granularity": dated.granularity,
        "schedule": dict(dated.schedule),
        "validations": length // every if length and every else None,
        "dense_twin": experiment.evaluation.dense == "train",
        "out": url_of(out) or str(out),
    }
    if not as_json:
        until = "until its return is reached" if length is None else f"{length:,} {unit}"
        target = told["sparsity"]
        pruned = "a dense run" if dated.dense else f"{dated.granularity} by {dated.criterion}"
        share = "" if dated.dense or target is None else f" to a sparsity of {target:g}"
        twin = ", and a dense twin as long" if told["dense_twin"] else ""
        tell(
            f"Run            {told['algorithm']} on {told['env']}, {until}{twin}",
            f"Pruning        {pruned}{share}, schedule {dated.schedule['kind']}",
            f"Directory      {told['out']}",
            "No faults      Nothing was started.",
        )
    return told
