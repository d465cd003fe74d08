"""``rayprune init``: a first YAML for an environment."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from rayprune.cli import completion
from rayprune.cli.options import AsJson, Debug, EnvConfig, json_object, load_rllib, tell
from rayprune.errors import InputError, StorageError
from rayprune.extras import require
from rayprune.tracking.record import write_atomic

if TYPE_CHECKING:
    import gymnasium as gym

    from rayprune.cli.setup.first_config import FirstConfig

T = TypeVar("T")


def init(
    env: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            autocompletion=completion.environments,
            help="A gymnasium id, such as CartPole-v1; module:Id imports the module first.",
            show_default=False,
        ),
    ] = None,
    algorithm: Annotated[
        str | None,
        typer.Option(
            help="PPO, DQN or SAC; default: by the actions.",
            show_default=False,
            autocompletion=completion.algorithms,
        ),
    ] = None,
    budget: Annotated[
        int | None,
        typer.Option(
            metavar="STEPS",
            help="Env steps of the run; default: by the algorithm.",
            show_default=False,
        ),
    ] = None,
    sparsity: Annotated[
        float, typer.Option(min=0.0, max=0.999, help="Share of the weights that goes.")
    ] = 0.9,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    env_config: EnvConfig = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The file; default: ALGORITHM_ENV.yaml here."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> dict[str, Any]:
    """Write a first YAML for an environment, commented, and check it as a run would.

    What isn't given is asked for at a terminal; elsewhere it has its default.

    Example: rayprune init --env CartPole-v1 --budget 100000
    """
    asks = sys.stdin.isatty() and not as_json
    if env is None and not asks:
        raise InputError("`--env` is missing: give a gymnasium id, such as CartPole-v1.")
    require("This command", "rllib")  # RLlib's import takes seconds: not before the first question
    if out is not None:
        _check_place(out, force=force)  # before anything is asked
    config = _config(env, algorithm, budget, sparsity, seed, env_config, asks=asks)
    path = out or Path(f"{config.name}.yaml")
    _check_place(path, force=force)
    _check(config)
    write_atomic(path, config.text(str(path)))
    if not as_json:
        tell(
            f"Wrote          {path}: {config.algorithm} on {config.env}, {config.budget:,} env "
            f"steps, sparsity {config.sparsity:g}",
            "Checked        as a run would be; nothing of it is tuned",
            f"Next           rayprune train {path}",
        )
    return {
        "out": str(path),
        "name": config.name,
        "algorithm": config.algorithm,
        "env": config.env,
        "env_steps": config.budget,
        "sparsity": config.sparsity,
    }


def _config(
    env: str | None,
    algorithm: str | None,
    budget: int | None,
    sparsity: float,
    seed: int,
    env_config: str | None,
    *,
    asks: bool,
) -> FirstConfig:
    """Return what the file is of; what is left open is asked for, or has its default."""
    keywords = json_object("--env-config", env_config)
    if env is None:
        question = "Environment (a gymnasium id, or module:Id)"
        env, spaces = _answer(question, None, lambda given: (given, _spaces(given, keywords)))
    else:
        spaces = _spaces(env, keywords)
    from rayprune.cli.setup.first_config import (
        ALGORITHMS,
        BUDGETS,
        FirstConfig,
        check_algorithm,
        check_budget,
        default_algorithm,
    )
    from rayprune.cli.setup.schema import schema_file

    usual = default_algorithm(spaces[1])
    if algorithm is None and asks:
        question = f"Algorithm ({', '.join(ALGORITHMS)})"
        chosen = _answer(question, usual, lambda given: check_algorithm(given, spaces[1]))
    else:
        chosen = check_algorithm(algorithm or usual, spaces[1])
    if budget is None and asks:
        steps = _answer("Env steps", str(BUDGETS[chosen]), lambda given: check_budget(_int(given)))
    else:
        steps = check_budget(BUDGETS[chosen] if budget is None else budget)
    return FirstConfig(
        env=env,
        algorithm=chosen,
        budget=steps,
        spaces=spaces,
        env_config=keywords,
        sparsity=sparsity,
        seed=seed,
        schema=schema_file(),
    )


def _answer(question: str, usual: str | None, check: Callable[[str], T]) -> T:
    """Ask until the answer is one that can be used; return what `check` makes of it.

    Raises:
        KeyboardInterrupt: Ctrl-C, or the end of the input.
    """
    while True:
        try:
            given = typer.prompt(question, usual, err=True)
        except (typer.Abort, KeyboardInterrupt) as error:
            tell("")  # the cursor stands behind the question
            raise KeyboardInterrupt("Interrupted; nothing was written.") from error
        try:
            return check(str(given).strip())
        except InputError as error:
            tell(str(error))


def _int(given: str) -> int:
    try:
        return int(given.replace(",", "").replace("_", ""))
    except ValueError as error:
        raise InputError(
            f"`--budget` must be a whole number of env steps, but is {given!r}."
        ) from error


def _spaces(env: str, keywords: dict[str, Any]) -> tuple[gym.Space[Any], gym.Space[Any]]:
    """Return an environment's spaces of observations and of actions."""
    load_rllib()
    from rayprune.policies.episodes import made

    with made(env, keywords) as environment:
        return environment.observation_space, environment.action_space


def _check_place(path: Path, *, force: bool) -> None:
    if path.is_dir() or not path.parent.is_dir():
        raise StorageError(f"{str(path)!r} can't be a file: give `--out` in a folder that exists.")
    if path.exists() and not force:
        raise StorageError(
            f"{str(path)!r} exists. Give another `--out`, or `--force` to replace it."
        )


def _check(config: FirstConfig) -> None:
    """Refuse what a run would refuse, before anything is written.

    Raises:
        ConfigError: all faults, such as spaces that the algorithm can't learn.
    """
    from rayprune.rllib.experiment.experiment_checks import load_checked

    with tempfile.TemporaryDirectory(prefix="rayprune-init-") as place:
        file = Path(place) / "config.yaml"
        file.write_text(config.text(), encoding="utf-8")
        load_checked(file)
