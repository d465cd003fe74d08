"""What an exported file says of itself, whatever its format."""

from __future__ import annotations

import importlib.metadata
import json
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

from rayprune.deploy.policy.interface import Interface
from rayprune.errors import InputError

KEY: Final = "rayprune.json"
"""Under which name the metadata lies in a file that holds more than one."""
SCHEMA: Final = 1


class OtherVersionWarning(UserWarning):
    """A file was written by another version of rayprune."""


@cache
def rayprune_version() -> str:
    """Return this package's version, of an installed one or of a source tree."""
    try:
        return importlib.metadata.version("rayprune")
    except importlib.metadata.PackageNotFoundError:
        project = Path(__file__).parents[3] / "pyproject.toml"
        if not project.is_file():
            return "unknown"
        # Python 3.10 has no tomllib; the file is ours, and its first version is the project's.
        said = re.search(r'^version = "(.+)"$', project.read_text(encoding="utf-8"), re.M)
        return said[1] if said else "unknown"


@dataclass(frozen=True, slots=True)
class Metadata:
    """A policy's ports, and where it comes from."""

    interface: Interface
    about: Mapping[str, Any] = field(default_factory=dict)
    """Spaces, source, versions: what people and tools may want to know; JSON only."""
    proven: bool = True
    """Whether the file was run and compared before it got its name."""
    version: str = field(default_factory=lambda: rayprune_version())
    """Which rayprune wrote it."""

    def to_json(self) -> str:
        """Return one line of JSON."""
        plain = {
            "schema": SCHEMA,
            "rayprune": self.version,
            "proven": self.proven,
            "interface": self.interface.to_dict(),
            "about": {**self.about},
        }
        return json.dumps(plain, sort_keys=True)

    @classmethod
    def from_json(cls, text: str | None, path: object) -> Metadata:
        """Read what `to_json` wrote; ``path`` is the file that a fault names.

        Another version's file is told of, as an `OtherVersionWarning`.

        Raises:
            InputError: it is none of rayprune's, or of a schema that isn't known here.
        """
        try:
            held = json.loads(text or "")
            schema, version = held["schema"], held.get("rayprune")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise _foreign(path) from error
        if schema != SCHEMA:
            raise InputError(
                f"{str(path)!r} has metadata of schema {schema!r}, which rayprune {version} wrote; "
                f"this is rayprune {rayprune_version()}, which knows schema {SCHEMA}. Open it with "
                "that version, or export it again."
            )
        try:
            ports = Interface.from_dict(held["interface"])
            found = cls(ports, held["about"], held["proven"], str(version))
        except (ValueError, KeyError, TypeError) as error:
            raise _foreign(path) from error
        if version != rayprune_version():
            warnings.warn(
                f"{str(path)!r} was exported by rayprune {version}, and this is "
                f"{rayprune_version()}. It holds what it needs and acts as it did then.",
                OtherVersionWarning,
                stacklevel=2,
            )
        return found


def _foreign(path: object) -> InputError:
    return InputError(
        f"{str(path)!r} wasn't exported by rayprune: it doesn't say what goes in and what "
        "comes out. Make it with `rayprune export`."
    )
