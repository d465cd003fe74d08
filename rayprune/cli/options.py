"""What several subcommands share: options, the console that people read, the needed extra."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from rayprune import yaml12
from rayprune.cli import completion
from rayprune.errors import CheckpointError, InputError, shown
from rayprune.extras import installed, needs, require
from rayprune.policies.places import is_foreign
from rayprune.presets import find_config
from rayprune.storage.urls import check_url, url_of
from rayprune.tracking.remote import fetch_checkpoint

if TYPE_CHECKING:
    from rayprune.policies.foreign_policy import ForeignOptions

Checkpoint = Annotated[
    Path,
    typer.Argument(
        metavar="CHECKPOINT", help="A checkpoint's directory or URL.", show_default=False
    ),
]
Env = Annotated[
    str | None,
    typer.Option(
        metavar="ID",
        autocompletion=completion.environments,
        help="Of a zip or module: the environment that it acts in; module:Id imports it first.",
        show_default=False,
    ),
]
EnvConfig = Annotated[
    str | None,
    typer.Option(
        metavar="JSON", help="With --env: its constructor's keywords.", show_default=False
    ),
]
Normalise = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|none",
        help="Of a zip: VecNormalize's file; default: what lies beside it as vecnormalize.pkl.",
        show_default=False,
    ),
]
ObservationSpace = Annotated[
    str | None,
    typer.Option(
        metavar="SPACE",
        help="Of a module, in place of --env: such as 'Box(4)'.",
        show_default=False,
    ),
]
ActionSpace = Annotated[
    str | None,
    typer.Option(
        metavar="SPACE",
        help="Likewise: such as 'Discrete(2)' or 'Box(1, low=-2, high=2)'.",
        show_default=False,
    ),
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust", help="Of a zip: run the code that it holds; without, none of it is run."
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
    require("This command", "rllib")
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
    if is_foreign(path):
        raise CheckpointError(
            f"{str(path)!r} is no checkpoint of RLlib, which this command needs. `rayprune export`,"
            " `bench` and `certify` take policies from elsewhere; `Pruner` prunes them in Python."
        )
    return path


def require_policy(place: Path) -> Path:
    """Do what `require_checkpoint` does, but let policies from elsewhere through as they are."""
    return place if is_foreign(place) else require_checkpoint(place)


def foreign_options(
    places: list[Path],
    *,
    env: str | None,
    env_config: str | None,
    normalise: str | None = None,
    observation_space: str | None = None,
    action_space: str | None = None,
    trust: bool = False,
) -> ForeignOptions | None:
    """Return what a command line says of policies from elsewhere; None where there are none.

    Raises:
        InputError: nothing that was given is such a policy, or there is an error in the JSON.
    """
    given = {
        "--env": env,
        "--env-config": env_config,
        "--normalise": normalise,
        "--observation-space": observation_space,
        "--action-space": action_space,
        "--trust": trust or None,
    }
    if not any(is_foreign(place) for place in places):
        for name in (name for name, value in given.items() if value is not None):
            raise InputError(
                f"`{name}` is for zips of Stable-Baselines3 and modules (`nets.py:make`): a "
                "checkpoint says that itself. Leave it out."
            )
        return None
    if not installed("gymnasium"):
        raise InputError(needs("A policy from elsewhere", "sb3") + ".")
    from rayprune.policies.foreign_policy import ForeignOptions

    return ForeignOptions(
        env=env,
        env_config=json_object("--env-config", env_config),
        normalise=normalise,
        observation_space=observation_space,
        action_space=action_space,
        trust=trust,
    )


def json_object(option: str, text: str | None) -> dict[str, object]:
    """Return the object that an option's JSON gives, an empty one where it wasn't given.

    Raises:
        InputError: it is no JSON, or no object.
    """
    try:
        held = {} if text is None else json.loads(text)
    except ValueError:
        held = None
    if not isinstance(held, dict):
        raise InputError(
            f"`{option}` must be a JSON object, such as '{{\"x\": 1}}', but is {shown(text)}."
        )
    return held


def run_name(checkpoint: Path) -> str:
    """Return what a policy is called: a file's name, or its run for those in ``checkpoints/``."""
    place = checkpoint.resolve()
    if place.is_file():
        return place.stem
    return place.parents[1].name if place.parent.name == "checkpoints" else place.name
