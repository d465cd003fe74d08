"""What several subcommands share: options, the console that people read, the needed extra."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from rayprune import yaml12
from rayprune.errors import CheckpointError, InputError
from rayprune.presets import find_config
from rayprune.storage.urls import check_url, url_of
from rayprune.tracking.remote import fetch_checkpoint

Checkpoint = Annotated[
    Path,
    typer.Argument(
        metavar="CHECKPOINT", help="A checkpoint's directory or URL.", show_default=False
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Replace a value of the file, such as pruning.sparsity=0.8; may be given repeatedly.",
    ),
]
Seed = Annotated[int | None, typer.Option(help="Replace the file's seed.", show_default=False)]
Episodes = Annotated[
    int | None, typer.Option(min=1, help="Episodes to evaluate on.", show_default=False)
]
Address = Annotated[
    str | None,
    typer.Option(metavar="ADDR", help="A running Ray cluster; default: start Ray here."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]

Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose",
        help="Tell which parts of training RLlib's own loops do, not the lean ones, and why.",
    ),
]


def person() -> Console:
    """Return the console that people read: standard error."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def tell(*parts: str | Table) -> None:
    """Print lines and tables for people."""
    console = person()
    for part in parts:
        console.print(part, markup=False)


@contextmanager
def in_detail(listener: Callable[[str], None], *, wanted: bool) -> Iterator[None]:
    """Let debug lines of ours be heard meanwhile, if that is wanted."""
    logger, handler = logging.getLogger("rayprune"), _Lines(listener)
    level = logger.level
    if wanted:
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


class _Lines(logging.Handler):
    def __init__(self, listener: Callable[[str], None]) -> None:
        super().__init__(logging.DEBUG)
        self._listener = listener

    def emit(self, record: logging.LogRecord) -> None:
        self._listener(record.getMessage())


def load_rllib() -> None:
    """Import RLlib, which takes seconds; refuse where Ray isn't installed.

    RLlib's remarks on itself are silenced: they would stand between our own lines.
    """
    if importlib.util.find_spec("ray") is None or importlib.util.find_spec("gymnasium") is None:
        raise InputError("This command needs Ray: pip install 'rayprune[rllib]'.")

    import ray.rllib

    # RLlib sets its loggers' levels when it is imported.
    for module in (ray, ray.rllib):
        logging.getLogger(module.__name__).setLevel(logging.ERROR)


def check_early(config: Path, out: Path | None) -> None:
    """Refuse before Ray's import, which takes seconds: no file, no YAML, no place for a run."""
    yaml12.read_mapping(find_config(config))
    url = None if out is None else url_of(out)
    if url is not None:
        check_url(url)


def require_path(out: str | Path, command: str) -> None:
    """Refuse a URL as the place of what a command writes to paths alone.

    Raises:
        InputError: ``out`` is a URL.
    """
    url = url_of(out)
    if url is not None:
        raise InputError(
            f"`--out` of `rayprune {command}` must be a path, but is {url!r}. Give one that "
            "lasts, such as a directory that all nodes share, and copy it from there."
        )


def require_checkpoint(path: Path) -> Path:
    """Refuse a checkpoint that isn't there before Ray is imported; fetch one that has a URL."""
    path = fetch_checkpoint(path)
    if not path.exists():
        raise CheckpointError(
            f"There is no checkpoint {str(path)!r}. A run keeps its own in its directory's "
            "checkpoints/, and summary.json names the best."
        )
    return path


def run_name(checkpoint: Path) -> str:
    """Return what a policy is called: a file's name, or its run for those in ``checkpoints/``."""
    place = checkpoint.resolve()
    if place.is_file():
        return place.stem
    return place.parents[1].name if place.parent.name == "checkpoints" else place.name
