"""``rayprune fit``: from a budget to a proven file."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any, Final

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
    require_path,
    tell,
)
from rayprune.errors import InputError

_BUDGETS: Final = "Budgets"
_SEARCH: Final = "Search"


def _budget(metavar: str, text: str) -> Any:
    return typer.Option(metavar=metavar, help=text, rich_help_panel=_BUDGETS, show_default=False)


def fit(
    config: Annotated[
        Path,
        typer.Argument(
            metavar="CONFIG",
            autocompletion=completion.configs,
            help="A YAML file or a preset; its `fit` block may hold the same keys as the options.",
            show_default=False,
        ),
    ],
    share: Annotated[
        float | None,
        typer.Option(
            "--return",
            metavar="SHARE",
            help="What is to be kept of the dense return, certified; default: 0.95.",
            rich_help_panel=_BUDGETS,
            show_default=False,
        ),
    ] = None,
    deadline: Annotated[
        str | None, _budget("TIME", "What 99 of 100 actions take at most, as 1ms.")
    ] = None,
    p99: Annotated[
        str | None, _budget("TIME", "The 99th percentile of an action, as 20us.")
    ] = None,
    latency: Annotated[str | None, _budget("TIME", "The median of an action.")] = None,
    flash: Annotated[
        str | None, _budget("SIZE", "Code and constants, as 64KB (of 1,024 bytes).")
    ] = None,
    ram: Annotated[str | None, _budget("SIZE", "Memory beside them, the stack included.")] = None,
    instructions: Annotated[str | None, _budget("COUNT", "Of one action, as 20000.")] = None,
    parameters: Annotated[str | None, _budget("COUNT", "That aren't zero.")] = None,
    energy: Annotated[str | None, _budget("ENERGY", "Of one action, as 5uJ.")] = None,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="TARGET",
            help="Where the policy shall act; default: host.",
            rich_help_panel=_BUDGETS,
            show_default=False,
        ),
    ] = None,
    best: Annotated[
        bool | None,
        typer.Option(
            "--best",
            help="Go on after the first that is good; hand over the one that uses least.",
            rich_help_panel=_SEARCH,
        ),
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Candidates that are trained at most; default: 8.",
            rich_help_panel=_SEARCH,
            show_default=False,
        ),
    ] = None,
    overrides: Overrides = None,
    seed: Seed = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The fit's directory; default: runs/NAME-seedN-fit."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the fit in the directory.")
    ] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only tell what is feasible; nothing is trained.")
    ] = False,
    address: Address = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> dict[str, Any]:
    """Search for a policy that keeps to budgets; end with its file, measured and certified.

    Exit code 0: met and certified. 1: not met, or not feasible. 2: wrong input.

    Example: rayprune fit fit_cartpole_cortex_m4 --flash 16KB --ram 4KB
    """
    check_early(config, None)
    if out is not None:
        require_path(out, "fit")
    if plan and resume:
        raise InputError("`--plan` runs nothing that `--resume` could go on with: drop either.")
    given = {
        "return": share,
        "deadline": deadline,
        "p99": p99,
        "latency": latency,
        "flash": flash,
        "ram": ram,
        "instructions": instructions,
        "parameters": parameters,
        "energy": energy,
        "target": target,
        "best": best,
        "trials": trials,
    }
    load_rllib()
    from rayprune.cli.printing.fit_tables import (
        TerminalFitReporter,
        fit_lines,
        plan_table,
        uses_table,
    )
    from rayprune.fit.fit import plan_fit, planned, run_fit
    from rayprune.fit.fit_spec import load_fit

    options = {key: value for key, value in given.items() if value is not None}
    asked = load_fit(config, overrides or (), seed, options)
    reporter = TerminalFitReporter(person())
    if plan:
        told = planned(asked, plan_fit(asked, reporter))
        if not as_json:
            tell(plan_table(told), told["reason"])
        return told
    experiment = asked.experiment
    out = out or Path("runs") / f"{experiment.name}-seed{experiment.seed}-fit"
    try:
        result: dict[str, Any] = run_fit(
            asked, out, resume=resume, address=address, reporter=reporter
        )
    finally:
        reporter.close()
    if as_json:
        return result
    if "chosen" not in result:
        tell(plan_table(result), result["reason"])
        return result
    tell(uses_table(result), *fit_lines(result, out))
    if result["met"]:
        file = shlex.quote(str(out / result["artifact"]["file"]))
        tell(f"Next           rayprune verify {file}")
    return result
