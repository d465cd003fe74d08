"""What a job is made of: a command line, and the files that travel to the cluster with it."""

from __future__ import annotations

import shlex
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

import rayprune
from rayprune import yaml12
from rayprune.errors import ConfigError, InputError
from rayprune.storage.urls import url_of
from rayprune.tracking.record import check_lasting

STOP_WAIT_S: Final = 60
"""How long a job that is stopped may take to write its checkpoint; Ray's own patience is 3 s."""
_BLOCKS: Final = {"search": "sweep", "fit": "fit"}
"""Blocks of a config, and the commands that they are for."""
_OURS: Final = ("working_dir", "py_modules")
"""Keys of a runtime environment that are set here."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A command on a cluster."""

    name: str
    """Ray's submission id."""
    entrypoint: str
    runtime_env: Mapping[str, Any]


def make_job(
    config: Path,
    raw: Mapping[str, Any],
    options: Mapping[str, object],
    working_dir: Path,
    runtime_env: Path | None,
) -> Job:
    """Return the job that trains, sweeps or fits a config.

    Args:
        config: the YAML file, which must lie in ``working_dir``, or in the code as presets do.
        raw: what it says; see `command_for`.
        options: of the command line on the cluster: its ``--out``, ``--set`` and so on. None and
            False are left out, a list is repeated.
        working_dir: the directory that travels: the config, and modules that it imports.
        runtime_env: a YAML file of Ray's further runtime environment, such as ``env_vars``.

    Raises:
        InputError: something of it can't travel.
    """
    root = working_dir.resolve()
    if not root.is_dir():
        raise InputError(f"`--working-dir` {str(working_dir)!r} is no directory.")
    inside = _travelling(config, root)
    command = command_for(raw)
    arguments = ["python", "-m", "rayprune", command, inside, *_flags(options)]
    return Job(
        name=f"{raw['name']}-{command}-{uuid.uuid4().hex[:8]}",
        entrypoint=shlex.join(arguments),
        runtime_env=_runtime_env(root, runtime_env),
    )


def command_for(raw: Mapping[str, Any]) -> str:
    """Return the command that a config is for, by its block.

    >>> [command_for(raw) for raw in ({}, {"search": {}}, {"fit": {}})]
    ['train', 'sweep', 'fit']
    """
    return next((name for key, name in _BLOCKS.items() if raw.get(key) is not None), "train")


def require_lasting(out: str | None) -> str:
    """Return the place of the results; refuse one that is gone with the job.

    Raises:
        InputError: none is given, or it is relative to the job's own directory.
    """
    if out:
        check_lasting(out)
    if out and (url_of(out) or PurePosixPath(out).is_absolute()):
        return out
    given = "is missing" if not out else f"{out!r} is relative"
    raise InputError(
        f"`--out` {given}, and a job's own directory goes with it: give a path that all nodes "
        "share, such as /shared/runs/NAME, or a URL such as s3://BUCKET/NAME."
    )


def _travelling(config: Path, root: Path) -> str:
    """Return what the file is called on the cluster; refuse one that stays behind."""
    package = Path(rayprune.__file__).parent.resolve()
    if config.resolve().is_relative_to(root):
        return config.resolve().relative_to(root).as_posix()
    if config.resolve().is_relative_to(package):  # an installed preset: it is in the code
        return config.stem
    raise InputError(
        f"{str(config)!r} must lie in the directory that travels to the cluster, "
        f"{str(root)!r}. Copy it there, or give another one with --working-dir."
    )


def _flags(options: Mapping[str, object]) -> list[str]:
    """Return ``--key value`` for each option that is given.

    >>> _flags({"seed": 1, "set": ["a.b=2"], "resume": True, "debug": False, "address": None})
    ['--seed', '1', '--set', 'a.b=2', '--resume']
    """
    flags: list[str] = []
    for key, value in options.items():
        if value is True:
            flags.append(f"--{key}")
        elif isinstance(value, Sequence) and not isinstance(value, str):
            flags += [part for item in value for part in (f"--{key}", str(item))]
        elif value is not None and value is not False:
            flags += [f"--{key}", str(value)]
    return flags


def _runtime_env(root: Path, path: Path | None) -> dict[str, Any]:
    """Return Ray's runtime environment: the user's, with the code in it."""
    given = {} if path is None else yaml12.read_mapping(path)
    faults = [
        f"`{key}` in {str(path)!r} is set by `rayprune submit`: use --working-dir."
        for key in _OURS
        if key in given
    ]
    if not isinstance(given.get("env_vars", {}), Mapping):
        faults.append(f"`env_vars` in {str(path)!r} must be a mapping of names to texts.")
    if faults:
        raise ConfigError(faults)
    variables = {"RAY_JOB_STOP_WAIT_TIME_S": STOP_WAIT_S, **given.get("env_vars", {})}
    environment = {
        **given,
        "working_dir": str(root),
        "env_vars": {str(key): str(value) for key, value in variables.items()},
    }
    package = Path(rayprune.__file__).parent
    if package.parent != root:
        # So that the cluster runs the code that has checked the config, not what its image has.
        environment["py_modules"] = [str(package)]
    return environment
