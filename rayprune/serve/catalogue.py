"""Which policies are served: their names, their files, and what those say of themselves."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from rayprune.deploy.formats import format_of, metadata_of
from rayprune.deploy.policy.file_hash import file_sha256, require_whole
from rayprune.deploy.policy.interface import Interface
from rayprune.deploy.policy.metadata import Metadata
from rayprune.errors import InputError, did_you_mean
from rayprune.serve.request_error import RequestError
from rayprune.storage.copies import fetched_file
from rayprune.storage.urls import url_of

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_NAMED: Final = re.compile(rf"({_NAME.pattern})=(.+)")
_LISTED: Final = 12
"""How many names an error lists."""


@dataclass(frozen=True, slots=True)
class PolicyFile:
    """A policy that is served."""

    name: str
    """What requests call it."""
    source: str
    """Its exported file: an absolute path, or a URL."""
    sha256: str
    """Of the whole file, when it was listed."""
    format: str
    metadata: Metadata

    @property
    def interface(self) -> Interface:
        """What goes in and comes out."""
        return self.metadata.interface

    def to_dict(self) -> dict[str, Any]:
        """Return what people may know of it; JSON only."""
        return {
            "name": self.name,
            "source": self.source,
            "sha256": self.sha256,
            "format": self.format,
            "proven": self.metadata.proven,
            "interface": self.interface.to_dict(),
            "about": {**self.metadata.about},
        }


Catalogue: TypeAlias = Mapping[str, PolicyFile]


def read_catalogue(artifacts: Sequence[str | Path]) -> dict[str, PolicyFile]:
    """Read what is to be served, by name; all faults are told before anything starts.

    Args:
        artifacts: exported files' paths or URLs, each ``FILE`` or ``NAME=FILE``. Without a name it
            is the file's, without its ending.

    Raises:
        InputError: a file isn't there, isn't whole, or has a name that another has.
    """
    if not artifacts:
        raise InputError("No policy is given. Make files with `rayprune export`, and name them.")
    found: dict[str, PolicyFile] = {}
    for text in artifacts:
        name, source = _named(str(text))
        if name in found:
            raise InputError(
                f"Two policies are called {name!r}: {found[name].source!r} and {source!r}. Give "
                f"names: NAME={source}."
            )
        found[name] = _read(name, source)
    return found


def look_up(catalogue: Catalogue, name: object) -> PolicyFile:
    """Return a policy that is served.

    Raises:
        RequestError: there is none of this name.
    """
    held = catalogue.get(name) if isinstance(name, str) else None
    if held is not None:
        return held
    names = sorted(catalogue)
    shown = ", ".join(map(repr, names[:_LISTED]))
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    raise RequestError(
        f"`policy` must be one that is served ({shown}{more}), but is {name!r}."
        f"{did_you_mean(name, names)}",
        404,
        "policy",
    )


def open_file(source: str) -> Path:
    """Return an exported file on this machine, fetched if it has a URL.

    Raises:
        InputError: it isn't there.
    """
    path = fetched_file(source)
    if not path.is_file():
        raise InputError(
            f"There is no exported file {source!r} on this machine. Make one with `rayprune "
            "export`; on a cluster every node must find it, at the same path or by a URL."
        )
    return path


def _named(text: str) -> tuple[str, str]:
    # A file whose own name has an equals sign in it is meant as it is.
    found = None if Path(text).is_file() else _NAMED.fullmatch(text)
    name, source = found.groups() if found else (None, text)
    if url_of(source) is None:
        source = str(Path(source).absolute())
    name = name or Path(source.partition("?")[0]).stem
    if not _NAME.fullmatch(name):
        raise InputError(
            f"A policy's name must be of letters, digits, `.`, `_` and `-`, but {source!r} gives "
            f"{name!r}. Name it: NAME={source}."
        )
    return name, source


def _read(name: str, source: str) -> PolicyFile:
    path = open_file(source)
    kind = format_of(path).name
    require_whole(path)
    return PolicyFile(name, source, file_sha256(path), kind, metadata_of(path))
