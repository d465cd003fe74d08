"""The kinds of files that a policy is exported to, by the name that the command line says.

A format is one file or folder here and one line in `FORMATS`; `register_format` adds one from
elsewhere, which obeys the same rules.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rayprune.deploy.policy.file_hash import require_whole
from rayprune.errors import InputError, did_you_mean
from rayprune.pruning.registry import Registry

if TYPE_CHECKING:
    from rayprune.deploy.formats.base import ExportOptions, Format
    from rayprune.deploy.policy.artifact import Artifact
    from rayprune.deploy.policy.metadata import Metadata

FORMATS: Final = Registry[str | type["Format"]](
    "format",
    {
        "onnx": "rayprune.deploy.formats.onnx.onnx_format:OnnxFormat",
        "torch": "rayprune.deploy.formats.pt2:TorchFormat",
        "c": "rayprune.deploy.formats.c.c_format:CFormat",
    },
)
"""Name -> a `Format`, or where it is: ``module:class``, imported when it is used."""


def register_format(kind: type[Format]) -> None:
    """Add a format of one's own: `export_policy`, `open_artifact` and the command line know it.

    Raises:
        ConfigError: a format of this name exists.
        InputError: another format's files have the same ending.
    """
    other = suffixes().get(kind.suffix)
    if other is not None:
        raise InputError(f"Files of format {other!r} end in {kind.suffix!r}, too. Choose another.")
    FORMATS.add(kind.name, kind)


def format_named(name: str) -> Format:
    """Return a format.

    Raises:
        InputError: there is none of this name.
    """
    check_name(name)
    held = FORMATS[name]
    if isinstance(held, str):
        module, _, kind = held.partition(":")
        held = getattr(importlib.import_module(module), kind)
    return held()


def check_name(name: str) -> None:
    """Refuse a name that no format has; imports none.

    Raises:
        InputError: says which there are.
    """
    if name not in FORMATS:
        raise InputError(
            f"`--format` must be one of {sorted(FORMATS)}, but is {name!r}."
            f"{did_you_mean(name, FORMATS)}"
        )


def suffixes() -> dict[str, str]:
    """Return the formats' names by how their files' names end."""
    return {format_named(name).suffix: name for name in FORMATS}


def is_exported(path: Path) -> bool:
    """Whether ``path`` is a file whose name ends as an exported one's."""
    return path.is_file() and path.suffix in suffixes()


def format_of(path: Path) -> Format:
    """Return an exported file's format, by how its name ends.

    Raises:
        InputError: it ends otherwise.
    """
    known = suffixes()
    if path.suffix not in known:
        raise InputError(
            f"{str(path)!r} is no exported file: its name must end in one of {sorted(known)}."
        )
    return format_named(known[path.suffix])


def check_options(chosen: Format, options: ExportOptions) -> None:
    """Refuse options that a format doesn't know, or values that it doesn't take.

    Raises:
        InputError: says why.
    """
    from rayprune.deploy.formats.base import LANES

    if options.lanes is not None:
        if options.lanes not in LANES:
            raise InputError(f"`lanes` must be one of {list(LANES)}, but is {options.lanes}.")
        if "lanes" not in chosen.options or options.int8:
            kind = "int8" if options.int8 else f"format {chosen.name!r}"
            raise InputError(f"`lanes` changes nothing in a file of {kind}. Leave it out.")
    if options.int8 and "int8" not in chosen.options:
        raise _not_for("int8", chosen)
    if options.forced and (chosen.whole_numbers or not options.int8):
        raise InputError("`--force` is for `--format onnx --int8`: it takes what is slower.")
    if options.name is not None and "name" not in chosen.options:
        raise _not_for("name", chosen)
    chosen.check(options)


def _not_for(option: str, chosen: Format) -> InputError:
    known = [name for name in FORMATS if option in format_named(name).options]
    return InputError(
        f"`--{option}` is for `--format {'|'.join(known)}`, but the format is {chosen.name!r}."
    )


def open_artifact(path: Path | str, *, threads: int = 1) -> Artifact:
    """Open an exported file, once its content has the hash that it holds.

    An `OtherVersionWarning` tells of another version of rayprune.

    Args:
        path: what ``rayprune export`` wrote: ``.onnx``, ``.pt2`` or ``.c``.
        threads: how many ONNX Runtime computes with, 0 for one a core; torch has its own setting,
            ``torch.set_num_threads``, and C computes with one.

    Raises:
        InputError: it is none, it has changed since it was exported, its metadata is of another
            schema, or what it needs to run is missing.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"There is no exported file {str(path)!r}. Make one with `rayprune export`."
        )
    found = format_of(path)
    require_whole(path)
    return found.open(path, threads)


def metadata_of(path: Path) -> Metadata:
    """Read what an exported file says of itself, without a runtime or a compiler.

    Raises:
        InputError: it says nothing, or can't be read.
    """
    from rayprune.deploy.policy.metadata import Metadata

    return Metadata.from_json(format_of(path).metadata_text(path), path)
