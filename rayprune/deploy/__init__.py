"""Small and fast for real: what comes out of pruning, made to run without Ray. Pure torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rayprune.deploy.compaction.compact import Compacted, compact
    from rayprune.deploy.compaction.proof import prove
    from rayprune.deploy.export.export import export_policy
    from rayprune.deploy.export.verify import verify
    from rayprune.deploy.formats import open_artifact, register_format

__all__ = [
    "Compacted",
    "compact",
    "export_policy",
    "open_artifact",
    "prove",
    "register_format",
    "verify",
]

# Fetched at first use: importing torch takes seconds, and whoever opens a file needs little of it.
_HOMES = {
    "Compacted": "compaction.compact",
    "compact": "compaction.compact",
    "export_policy": "export.export",
    "open_artifact": "formats",
    "prove": "compaction.proof",
    "register_format": "formats",
    "verify": "export.verify",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"rayprune.deploy.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
