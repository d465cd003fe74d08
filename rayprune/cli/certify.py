"""``rayprune certify``: a gate for releases."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rayprune.cli.options import (
    ActionSpace,
    AsJson,
    Debug,
    Env,
    EnvConfig,
    Normalise,
    ObservationSpace,
    Trust,
    foreign_options,
    load_rllib,
    person,
    require_policy,
    run_name,
    tell,
)
from rayprune.cli.printing.certificate_tables import (
    TerminalCertifyReporter,
    certificate_lines,
    certificate_table,
)


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
    env: Env = None,
    env_config: EnvConfig = None,
    normalise: Normalise = None,
    observation_space: ObservationSpace = None,
    action_space: ActionSpace = None,
    trust: Trust = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> dict[str, Any]:
    """Test that a pruned policy is as good as the dense one, but for a margin.

    Either is a checkpoint, a run's directory, an exported file, a Stable-Baselines3 zip, or a
    module of your own (nets.py:make); the last two with --env.

    Both play the same seeds until it is decided. Exit code 0: certified. 1: inferior, or undecided
    after --episodes. 2: wrong input.

    Example: rayprune certify runs/ppo_cartpole-seed0/dense runs/ppo_cartpole-seed0 --margin 0.05
    Example: rayprune certify dense.zip pruned.zip --env CartPole-v1
    """
    source = foreign_options(
        [dense, pruned],
        env=env,
        env_config=env_config,
        normalise=normalise,
        observation_space=observation_space,
        action_space=action_space,
        trust=trust,
    )
    dense, pruned = require_policy(dense), require_policy(pruned)
    load_rllib()
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
    out = out or Path("runs") / f"{run_name(pruned)}-certificate"
    with TerminalCertifyReporter(person()) as reporter:
        result: dict[str, Any] = run(dense, pruned, options, out, reporter, source)
    if not as_json:
        page = f"Page           {out / PAGE_FILE}"
        tell(certificate_table(result), *certificate_lines(result), page)
    return result
