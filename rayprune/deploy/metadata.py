"""What an exported file says of itself, whatever its format."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from rayprune.deploy.interface import Interface
from rayprune.errors import InputError

KEY: Final = "rayprune.json"
"""Under which name the metadata lies in a file that holds more than one."""
_SCHEMA: Final = 1


@dataclass(frozen=True, slots=True)
class Metadata:
    """A policy's ports, and where it comes from."""

    interface: Interface
    about: Mapping[str, Any] = field(default_factory=dict)
    """Spaces, source, versions: what people and tools may want to know; JSON only."""

    def to_json(self) -> str:
        """Return one line of JSON."""
        plain = {"schema": _SCHEMA, "interface": self.interface.to_dict(), "about": {**self.about}}
        return json.dumps(plain, sort_keys=True)

    @classmethod
    def from_json(cls, text: str | None, path: object) -> Metadata:
        """Read what `to_json` wrote; ``path`` is the file that a fault names.

        Raises:
            InputError: it is none of rayprune's.
        """
        try:
            held = json.loads(text or "")
            return cls(Interface.from_dict(held["interface"]), held["about"])
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{str(path)!r} wasn't exported by rayprune: it doesn't say what goes in and what "
                "comes out. Make it with `rayprune export`."
            ) from error
