"""``rayprune bench``: what a policy's actions cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from rayprune.cli import completion
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
    tell,
)
from rayprune.cli.printing.bench_tables import Stages, bench_lines, bench_tables
from rayprune.cli.printing.target_tables import target_lines, target_table
from rayprune.errors import ConfigError, InputError
from rayprune.storage.urls import url_of

_BATCHES: Final = "1,32,256"
_THREADS: Final = "1,all"
_ROUNDS: Final = 20
_SCHEMA: Final = 1
"""Of what `--target` gives."""


def bench(
    policies: Annotated[
        list[Path],
        typer.Argument(
            metavar="POLICY|FILE...",
            help="Checkpoints, runs, URLs of these, exported files, Stable-Baselines3 zips, "
            "modules (nets.py:make); the first is the others' reference.",
            show_default=False,
        ),
    ],
    deadline: Annotated[
        float | None,
        typer.Option(metavar="MS", help="What a call may take; tells the share that misses it."),
    ] = None,
    batches: Annotated[
        str, typer.Option(metavar="LIST", help="Batch sizes, separated by commas.")
    ] = _BATCHES,
    threads: Annotated[
        str, typer.Option(metavar="LIST", help="Numbers of threads; `all` is one a core.")
    ] = _THREADS,
    formats: Annotated[
        str | None,
        typer.Option(
            metavar="LIST", help="Which files to export checkpoints to; default: all there are."
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(min=5, help="Blocks of calls of each policy.")] = _ROUNDS,
    memory: Annotated[
        bool, typer.Option(help="Measure peak memory, each file in a process of its own.")
    ] = True,
    target: Annotated[
        list[str] | None,
        typer.Option(
            autocompletion=completion.targets,
            metavar="TARGET",
            help="Measure exported files there instead: host, cortex-m4, 'cortex-m4 -Os', or "
            "'command: ./my_board.sh'; `rayprune list targets` has all. May be given repeatedly.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write bench.json and bench.html there."),
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
    """Time policies side by side: dense and pruned in each runtime, and RLlib's own call.

    A run's directory gets the figures in its summary.json.

    With `--target`: what exported files take there, in flash, RAM, instructions or time, and
    whether their own test passes; exit code 1 if one doesn't.

    Example: rayprune bench runs/ppo_cartpole-seed0 --deadline 0.1
    Example: rayprune bench policy.c --target cortex-m4 --json
    """
    if target:
        given = {
            "deadline": deadline is None,
            "batches": batches == _BATCHES,
            "threads": threads == _THREADS,
            "formats": formats is None,
            "rounds": rounds == _ROUNDS,
            "no-memory": memory,
            "out": out is None,
            "env": env is None,
            "env-config": env_config is None,
            "normalise": normalise is None,
            "observation-space": observation_space is None,
            "action-space": action_space is None,
            "trust": not trust,
        }
        _refuse_beside_target([name for name, default in given.items() if not default])
        return _on_targets(policies, target, as_json=as_json)
    # A bucket's summary is its run's alone.
    ours = [path for path in policies if url_of(path) is None]
    source = foreign_options(
        policies,
        env=env,
        env_config=env_config,
        normalise=normalise,
        observation_space=observation_space,
        action_space=action_space,
        trust=trust,
    )
    policies = [require_policy(path) for path in policies]
    sizes = _whole_numbers("batches", batches, {})
    counts = _whole_numbers("threads", threads, {"all": 0})
    load_rllib()
    from rayprune.rllib.commands.bench import BenchOptions
    from rayprune.rllib.commands.bench import bench as run
    from rayprune.rllib.commands.bench_record import record_latency
    from rayprune.tracking.report.bench_page import write_bench

    options = BenchOptions(
        deadline_ms=deadline,
        batches=sizes,
        threads=counts,
        rounds=rounds,
        formats=BenchOptions().formats if formats is None else _parts(formats),
        memory=memory,
    )
    console = person()
    with Stages(console) as reporter:
        result: dict[str, Any] = run(policies, options, reporter, source)
    page = None if out is None else write_bench(result, out)
    told = [path for path in ours if record_latency(path, result, console.print)]
    if not as_json:
        tell(*bench_tables(result), *bench_lines(result))
        tell(*(f"Summary        {path / 'summary.json'}" for path in told))
        tell(*([] if page is None else [f"Page           {page}"]))
    return result


def _refuse_beside_target(given: Sequence[str]) -> None:
    """Refuse options that only say how policies are timed side by side.

    Raises:
        ConfigError: says which.
    """
    if given:
        names = ", ".join(f"`--{name}`" for name in given)
        raise ConfigError(
            f"{names} can't be given with `--target`, which measures one action at a time in its "
            "own way. Leave one of them out."
        )


def _on_targets(files: Sequence[Path], targets: Sequence[str], *, as_json: bool) -> dict[str, Any]:
    """Measure each file on each target.

    Returns:
        ``{"schema": 1, "measurements": [{"file", **Measurement.to_dict()}], "exit_code"}``.
    """
    from rayprune.deploy.targets import target_of

    chosen = [target_of(text) for text in targets]
    for file in files:
        url = url_of(file)
        if url is not None:
            raise InputError(f"`--target` measures files of this machine: fetch {url} first.")
        for one in chosen:
            one.check(file)
    console, measured = person(), []
    for file in files:
        for one in chosen:
            with console.status(f"measures {file} on {one.name}"):
                measured.append({"file": str(file), **one.measure(file).to_dict()})
    if not as_json:
        tell(target_table(measured), *target_lines(measured))
    failed = any(one["self_test"] is False for one in measured)
    return {"schema": _SCHEMA, "measurements": measured, "exit_code": 1 if failed else 0}


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(","))


def _whole_numbers(name: str, text: str, words: Mapping[str, int]) -> tuple[int, ...]:
    parts = _parts(text)
    try:
        return tuple(words[part] if part in words else int(part) for part in parts)
    except ValueError as error:
        raise ConfigError(
            f"`--{name}` must be whole numbers separated by commas, such as 1,32, but is {text!r}."
        ) from error
