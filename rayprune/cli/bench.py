"""``rayprune bench``: what a policy's actions cost."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from rayprune.cli.options import (
    AsJson,
    Debug,
    load_rllib,
    person,
    require_checkpoint,
    tell,
)
from rayprune.cli.printing.bench_tables import Stages, bench_lines, bench_tables
from rayprune.errors import ConfigError
from rayprune.storage.urls import url_of


def bench(
    targets: Annotated[
        list[Path],
        typer.Argument(
            metavar="CHECKPOINT|FILE...",
            help="Checkpoints, runs, URLs of these, and exported files; the first is the others' "
            "reference.",
            show_default=False,
        ),
    ],
    deadline: Annotated[
        float | None,
        typer.Option(metavar="MS", help="What a call may take; tells the share that misses it."),
    ] = None,
    batches: Annotated[
        str, typer.Option(metavar="LIST", help="Batch sizes, separated by commas.")
    ] = "1,32,256",
    threads: Annotated[
        str, typer.Option(metavar="LIST", help="Numbers of threads; `all` is one a core.")
    ] = "1,all",
    formats: Annotated[
        str | None,
        typer.Option(
            metavar="LIST", help="Which files to export checkpoints to; default: all there are."
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(min=5, help="Blocks of calls of each policy.")] = 20,
    memory: Annotated[
        bool, typer.Option(help="Measure peak memory, each file in a process of its own.")
    ] = True,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write bench.json and bench.html there."),
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> dict[str, Any]:
    """Time policies side by side: dense and pruned in each runtime, and RLlib's own call.

    A run's directory gets the figures in its summary.json.

    Example: rayprune bench runs/ppo_cartpole-seed0 --deadline 0.1
    """
    # A bucket's summary is its run's alone.
    ours = [path for path in targets if url_of(path) is None]
    targets = [require_checkpoint(path) for path in targets]
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
        result: dict[str, Any] = run(targets, options, reporter)
    page = None if out is None else write_bench(result, out)
    told = [path for path in ours if record_latency(path, result, console.print)]
    if not as_json:
        tell(*bench_tables(result), *bench_lines(result))
        tell(*(f"Summary        {path / 'summary.json'}" for path in told))
        tell(*([] if page is None else [f"Page           {page}"]))
    return result


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
